"""A vault on real local keys, whose answers a test can spoil or hold back, and the books it reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from broker.clock import FakeClock
from broker.vault.assembly import open_vault
from broker.vault.failures import KeyFailure
from broker.vault.settings import VaultSettings
from broker.vault.vault import Vault
from kms.local import create_key_file, open_local
from kms.port import Caller, Description, Kms, Wrap
from storage.records import DataKeyRecord, KeyringRecord, VersionRecord

CLUSTER = "c" * 52
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RING = "default"


class FaultyKms:
    """A real KMS key. error: raised by wrap and unwrap; reply: given by unwrap; hold: unwrap and check wait for it."""

    def __init__(self, inner: Kms) -> None:
        self._inner = inner
        self.error: Exception | None = None
        self.reply: bytes | None = None
        self.hold: asyncio.Event | None = None
        self.unwraps = 0
        self.callers: list[Caller | None] = []
        self.in_flight = 0
        self.in_flight_max = 0

    @property
    def uri(self) -> str:
        return self._inner.uri

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        if self.error is not None:
            raise self.error
        return await self._inner.wrap(key, context)

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        self.unwraps += 1
        self.callers.append(caller)
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            if self.hold is not None:
                await self.hold.wait()
            if self.error is not None:
                raise self.error
            if self.reply is not None:
                return self.reply
            return await self._inner.unwrap(wrap, context, caller)
        finally:
            self.in_flight -= 1

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        return await self._inner.generate(context)

    async def check(self) -> None:
        if self.hold is not None:
            await self.hold.wait()
        await self._inner.check()

    async def describe(self) -> Description:
        return await self._inner.describe()


@dataclass(kw_only=True)
class House:
    """A vault and what surrounds it."""

    vault: Vault
    clock: FakeClock
    kms: list[FaultyKms]
    data_keys: dict[str, DataKeyRecord] = field(default_factory=dict)
    keyrings: dict[str, KeyringRecord] = field(default_factory=dict)
    alarms: list[KeyFailure] = field(default_factory=list)

    @property
    def ring(self) -> KeyringRecord:
        return self.keyrings[RING]

    def reveal(self, record: VersionRecord, caller: Caller | None = None) -> bytes | None:
        """The value, as the desk opens it: if its data key may serve from memory."""
        opener = self.vault.opener(record.data_key, record.keyring, caller)
        return None if opener is None else opener.reveal(record)

    async def add_data_key(self, data_key: str, keyring: str = RING) -> DataKeyRecord:
        """Make a data key the active one of its keyring, with one block of seals."""
        record = await self.vault.generate_data_key(self.keyrings[keyring], data_key=data_key, now=self.clock.now())
        record = self.vault.propose_reservation(record)
        self.vault.credit_reservation(record)
        self.data_keys[data_key] = record
        self.keyrings[keyring] = msgspec.structs.replace(self.keyrings[keyring], active_data_key=data_key)
        return record

    async def put(
        self, value: bytes, *, token: str = "github/ci", version: int = 1, keyring: str = RING
    ) -> VersionRecord:
        """Seal a value, and give the row that would be stored."""
        sealed = await self.vault.seal(token=token, version=version, keyring=self.keyrings[keyring], value=value)
        return VersionRecord(
            token=token,
            version=version,
            stage="current",
            content_type="text/plain",
            keyring=sealed.keyring,
            data_key=sealed.data_key,
            fmt=sealed.fmt,
            sealed=sealed.blob,
            created_at=self.clock.now(),
            created_by="admin:test",
        )

    def fail(self, error: Exception | None) -> None:
        """From here on, every KMS key raises `error`; None: they answer again."""
        for each in self.kms:
            each.error = error

    @property
    def unwraps(self) -> int:
        """How often any KMS key was asked to unwrap."""
        return sum(each.unwraps for each in self.kms)

    async def settle(self) -> None:
        """Let every task that can run do so."""
        await self.clock.advance(0)


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def open_house(tmp_path: Path) -> OpenHouse:
    """Opens a vault over `keys` local keys, with one keyring and (unless told otherwise) its first data key."""

    @asynccontextmanager
    async def opened(
        *,
        keys: int = 1,
        authorize: Literal["broker", "kms"] = "broker",
        policy: str = "",
        with_data_key: bool = True,
        jitter: Callable[[], float] = lambda: 0.5,
        alarm: Callable[[KeyFailure], None] | None = None,
        **bounds: Any,
    ) -> AsyncIterator[House]:
        suffix = ""
        if policy:
            (tmp_path / "policy.toml").write_text(policy)
            suffix = f"?policy={tmp_path / 'policy.toml'}"
        async with AsyncExitStack() as stack:
            kms = []
            for number in range(keys):
                path = tmp_path / f"kms-{number}.key"
                create_key_file(path)
                kms.append(FaultyKms(await stack.enter_async_context(open_local(f"local:{path}{suffix}"))))
            ring = KeyringRecord(name=RING, kms_keys=(), authorize=authorize, active_data_key="", created_at=NOW)
            clock = FakeClock(NOW)
            data_keys: dict[str, DataKeyRecord] = {}
            keyrings = {RING: ring}
            alarms: list[KeyFailure] = []
            vault = await stack.enter_async_context(
                open_vault(
                    cluster_id=CLUSTER,
                    kms={each.uri: each for each in kms},
                    default_kms_keys=lambda: [each.uri for each in kms],
                    data_key=data_keys.get,
                    keyring=keyrings.get,
                    settings=VaultSettings(**bounds),
                    clock=clock,
                    jitter=jitter,
                    alarm=alarm or alarms.append,
                )
            )
            house = House(vault=vault, clock=clock, kms=kms, data_keys=data_keys, keyrings=keyrings, alarms=alarms)
            if with_data_key:
                await house.add_data_key("dk-1")
                for each in kms:
                    each.unwraps = 0
                    each.callers.clear()
            yield house

    return opened
