"""The one door to plaintext: opens sealed versions, seals values, and keeps the data keys of both.

Which worker may have which token, which rows are genuine, and when anything is committed, do not live here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from broker.errors import BrokerError
from broker.secret import Secret
from broker.vault.counters import VaultCounters
from broker.vault.envelope import FMT, check_value, seal_value
from broker.vault.errors import SealBroken
from broker.vault.failures import FailureKind
from broker.vault.gate import KmsGate, KmsHealth
from broker.vault.gates import KmsGates
from broker.vault.held_keys import HeldKey
from broker.vault.key_cache import KeyCache
from broker.vault.message_keys import MessageKeys
from broker.vault.minting import DataKeyMint
from broker.vault.needs import Needs
from broker.vault.root import Root
from broker.vault.seals import SealBudget, needs_rotation
from broker.vault.settings import VaultSettings
from kms.errors import KmsError
from kms.port import Caller
from storage.records import DataKeyRecord, KeyringRecord, RootRecord, VersionRecord

FLUSHED: Final = ("vault", ("flushed",))
"""The line of the feed, of no record's table, by which one replica tells all to flush."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sealed:
    """A sealed value and what a `VersionRecord` must say for it to open again, beside its token and version."""

    keyring: str
    data_key: str
    fmt: int
    blob: bytes


class Opener:
    """Opens versions sealed under one data key, on behalf of whom it was asked for. Good until the next await."""

    __slots__ = ("_held", "_messages")

    def __init__(self, held: HeldKey, messages: MessageKeys) -> None:
        self._held = held
        self._messages = messages

    def reveal(self, record: VersionRecord) -> bytes:
        """The value of `record`, for whom sends it at once; `Vault.open` gives what may be passed on.

        SealBroken: the row is not what was sealed. KeyUnavailable: used after an await.
        """
        held = self._held
        try:
            return self._messages.open(held, record)
        except SealBroken as error:
            broken = SealBroken(f"token {record.token!r} version {record.version}: {error.message}")
        if not held.live:
            # A key that was wiped meanwhile opens nothing, which must not be taken for a row that was tampered with.
            detail = "the key was wiped before it was used"
            raise held.need.failure(FailureKind.UNAVAILABLE, reason="evicted", detail=detail).error(retry_after_s=0.1)
        raise broken


class Vault:
    """Seals and opens. Made by `assembly.open_vault`; after that context has ended, everything is KeyUnavailable."""

    def __init__(
        self,
        *,
        gates: KmsGates,
        needs: Needs,
        cache: KeyCache,
        mint: DataKeyMint,
        settings: VaultSettings,
        counters: VaultCounters,
    ) -> None:
        self._gates = gates
        self._needs = needs
        self._cache = cache
        self._mint = mint
        self._settings = settings
        self._seals = SealBudget(settings=settings)
        self._messages = MessageKeys()
        self.counters = counters

    def opener(self, data_key: str, keyring: str, caller: Caller | None = None) -> Opener | None:
        """What opens versions sealed under this data key, if it may serve from memory; None: await `open` instead.

        Use it before the next await, and not after. caller: the worker it is for; needed where the keyring authorises
        at its KMS, ignored elsewhere. KeyUnavailable, KeyDenied, CallerDenied, KeyCorrupt: what asking for the data
        key has lately led to.
        """
        held = self._cache.held(self._needs.for_caller(data_key, keyring, caller))
        return None if held is None else Opener(held, self._messages)

    async def open(self, record: VersionRecord, caller: Caller | None = None) -> Secret:
        """The value of `record`, asking the KMS for its data key if need be, for wait_s at most.

        Raises as `opener`; SealBroken.
        """
        need = self._needs.for_caller(record.data_key, record.keyring, caller)
        try:
            held = await self._cache.fetch(need)
        except BrokerError:
            again = self._needs.for_caller(record.data_key, record.keyring, caller)
            if again.id == need.id:
                raise
            # The KMS keys changed while this one waited: those that it asked do not speak for those of now.
            held = await self._cache.fetch(again)
        return Secret(Opener(held, self._messages).reveal(record))

    async def seal(self, *, token: str, version: int, keyring: KeyringRecord, value: bytes) -> Sealed:
        """Seal `value` under the keyring's active data key, for this token and version only.

        BadRequest: the value's size. ReservationNeeded: reserve a block (`propose_reservation`), then call again.
        KeyUnavailable: also when no KMS has opened the data key within seal_proof_s. KeyDenied, KeyCorrupt.
        A failed or cancelled call may cost one reserved seal, and leaves nothing else.
        """
        check_value(value)
        need = self._needs.for_broker(keyring.active_data_key, keyring.name)
        if need.record.state != "active":
            detail = "the keyring's active data key is not in state active; rotate the keyring"
            raise need.failure(FailureKind.DENIED, reason="not_active", detail=detail).error()
        self._seals.spend(need.record.id)
        held = await self._cache.fetch(need, proved_within_s=self._settings.seal_proof_s)
        context = need.value_contexts.of(token, version)
        blob = seal_value(key=held.key, context=context, value=value)
        return Sealed(keyring=keyring.name, data_key=need.record.id, fmt=FMT, blob=blob)

    async def reseal(self, record: VersionRecord, keyring: KeyringRecord) -> Sealed:
        """The same value, token and version under the active data key of `keyring`, which may be another keyring.

        Speaks to the KMS as the broker itself. Raises as `open` and `seal`.
        """
        held = await self._cache.fetch(self._needs.for_broker(record.data_key, record.keyring))
        value = Secret(Opener(held, self._messages).reveal(record))
        try:
            return await self.seal(token=record.token, version=record.version, keyring=keyring, value=value.reveal())
        finally:
            value.wipe()

    async def generate_data_key(self, keyring: KeyringRecord, *, data_key: str, now: datetime) -> DataKeyRecord:
        """As `DataKeyMint.generate`."""
        return await self._mint.generate(keyring, data_key=data_key, now=now)

    async def rewrap(self, record: DataKeyRecord, kms_keys: Sequence[str]) -> DataKeyRecord:
        """As `DataKeyMint.rewrap`."""
        return await self._mint.rewrap(record, kms_keys)

    async def rewrap_root(self, record: RootRecord, root: Root) -> RootRecord:
        """As `DataKeyMint.rewrap_root`."""
        return await self._mint.rewrap_root(record, root)

    def kms_keys(self, keyring: KeyringRecord | None) -> tuple[str, ...]:
        """As `DataKeyMint.kms_keys`."""
        return self._mint.kms_keys(keyring)

    def opens(self, kms_key: str) -> bool:
        """Whether this KMS key is configured and may open what it wrapped; it may be silent just now."""
        return self._gates.opens(kms_key)

    async def key_versions(self, keyring: KeyringRecord | None) -> dict[str, str]:
        """As `DataKeyMint.key_versions`."""
        return await self._mint.key_versions(keyring)

    def needs_rotation(self, record: DataKeyRecord, *, now: datetime) -> bool:
        """Whether another data key should become the active one: this one is old, or nearly out of seals."""
        return needs_rotation(record, now=now, settings=self._settings)

    def propose_reservation(self, record: DataKeyRecord) -> DataKeyRecord:
        """The next revision of `record` with one more block of seals reserved, to be signed and committed.

        ReservationNeeded: none is left; the keyring has to be rotated.
        """
        return self._seals.propose(record)

    def credit_reservation(self, record: DataKeyRecord) -> None:
        """The proposed `record` is committed: its block may be spent. Call it once per commit."""
        self._seals.credit(record.id)

    def flush(self) -> None:
        """Wipe every cached data key and forget every failure; the next open asks the KMS."""
        self._cache.flush()

    def follow(self, settings: VaultSettings) -> None:
        """Go on under the cache policies of `settings`, and with the KMS keys that are configured and open now.

        Data keys in memory stay where that is still allowed.
        """
        self._needs.forget()
        self._cache.follow(settings, self._needs.renewed)

    async def let_go(self, kms_key: str) -> None:
        """Ask a KMS key nothing more that is no longer open, and return when no call to it is under way."""
        await self._gates.let_go(kms_key)

    def cached_keys(self) -> int:
        """How many unwrapped data keys are in memory."""
        return len(self._cache)

    def oldest_key_s(self) -> float:
        """How long ago a KMS gave the oldest data key that may serve now; 0.0 without one."""
        return self._cache.oldest_s()

    def health(self) -> tuple[KmsHealth, ...]:
        """Every KMS key as this process knows it, in the order they were given; those that only wrap are left out."""
        return tuple(gate.health() for gate in self._gates.values() if not gate.wraps_only)

    async def probe(self, *, lately_s: float) -> tuple[KmsHealth, ...]:
        """As `health`, after asking those, all at once, that have not done well lately whether they work."""

        async def ask(gate: KmsGate) -> None:
            with suppress(KmsError):
                await gate.check()

        async with asyncio.TaskGroup() as tasks:
            for known in self.health():
                if not known.well(lately_s=lately_s):
                    tasks.create_task(ask(self._gates[known.kms_key]))
        return self.health()
