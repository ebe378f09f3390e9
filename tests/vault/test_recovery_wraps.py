"""A recovery key beside other KMS keys: every key is wrapped for it, nobody asks it, and on the day it opens all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from broker.clock import FakeClock
from broker.errors import StartRefused
from broker.vault.assembly import open_vault
from broker.vault.errors import KeyDenied, KeyUnavailable
from broker.vault.failures import KeyFailure
from broker.vault.root import create_root, open_root
from broker.vault.settings import VaultSettings
from broker.vault.vault import Vault
from broker.vault.wrapping import openable
from kms.catalog import open_kms
from kms.local import create_key_file
from kms.port import Kms
from kms.recovery.adapter import recovery_uri
from kms.recovery.text import paper_text
from storage.records import DataKeyRecord, KeyringRecord, VersionRecord, WrapRecord

CLUSTER = "c" * 52
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(kw_only=True)
class Room:
    """A vault over the open KMS keys, and what it reads and says."""

    vault: Vault
    kms: dict[str, Kms]
    defaults: list[str]
    data_keys: dict[str, DataKeyRecord]
    keyring: KeyringRecord
    alarms: list[KeyFailure]

    async def add_data_key(self) -> DataKeyRecord:
        """A data key as the vault makes it."""
        self.data_keys["dk"] = await self.vault.generate_data_key(self.keyring, data_key="dk", now=NOW)
        return self.data_keys["dk"]

    async def put(self, value: bytes) -> VersionRecord:
        """A sealed version."""
        self.vault.credit_reservation(self.data_keys["dk"])
        sealed = await self.vault.seal(token="t", version=1, keyring=self.keyring, value=value)
        return VersionRecord(
            token="t",
            version=1,
            keyring="default",
            data_key=sealed.data_key,
            fmt=sealed.fmt,
            sealed=sealed.blob,
            stage="current",
            content_type="text/plain",
            created_at=NOW,
            created_by="admin:root",
        )


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """The URI of a recovery key, and the one that names the file with its private half."""
    private_key = X25519PrivateKey.generate()
    path = tmp_path / "paper"
    path.touch(mode=0o600)
    path.write_text(paper_text(private_key.private_bytes_raw()))
    uri = recovery_uri(private_key.public_key())
    return uri, f"{uri}?private-key=file:{path}"


@pytest.fixture
def local(tmp_path: Path) -> str:
    """The URI of a local key."""
    create_key_file(tmp_path / "kms.key")
    return f"local:{tmp_path / 'kms.key'}"


@asynccontextmanager
async def opened(uris: list[str], data_keys: dict[str, DataKeyRecord] | None = None) -> AsyncIterator[Room]:
    """A vault whose keyring uses these KMS keys, in this order."""
    async with AsyncExitStack() as stack:
        kms = {uri: await stack.enter_async_context(open_kms(uri)) for uri in uris}
        ring = KeyringRecord(name="default", kms_keys=(), authorize="broker", active_data_key="dk", created_at=NOW)
        known = data_keys if data_keys is not None else {}
        alarms: list[KeyFailure] = []
        defaults = list(uris)
        vault = await stack.enter_async_context(
            open_vault(
                cluster_id=CLUSTER,
                kms=kms,
                default_kms_keys=lambda: defaults,
                data_key=known.get,
                keyring={"default": ring}.get,
                settings=VaultSettings(),
                clock=FakeClock(NOW),
                jitter=lambda: 0.5,
                alarm=alarms.append,
            )
        )
        yield Room(vault=vault, kms=kms, defaults=defaults, data_keys=known, keyring=ring, alarms=alarms)


async def test_data_keys_are_wrapped_for_it_and_opened_by_others(pair: Any, local: str) -> None:
    """Wherever it stands in the list, it gets a wrap, is never asked, and nobody calls that a failure."""
    async with opened([pair[0], local]) as room:
        record = await room.add_data_key()
        version = await room.put(b"value")
        room.vault.flush()
        assert (await room.vault.open(version)).reveal() == b"value"
        assert [wrap.kms_key for wrap in record.wraps] == [pair[0], local]
        assert room.alarms == []


async def test_it_alone_makes_no_data_key(pair: Any) -> None:
    """A data key that nothing here would open again is not made."""
    async with opened([pair[0]]) as room:
        with pytest.raises(KeyDenied):
            await room.add_data_key()
    async with open_kms(pair[0]) as kms:
        with pytest.raises(StartRefused, match="name a KMS key beside it"):
            await create_root(kms=[kms], now=NOW)


async def test_an_outage_of_all_others_is_an_outage(pair: Any, local: str) -> None:
    """While the other key is away the answer is try later, not a refusal by the key that never opens."""
    async with opened([pair[0], local]) as room:
        await room.add_data_key()
        version = await room.put(b"value")
        room.vault.flush()
        Path(local.removeprefix("local:")).unlink()
        with pytest.raises(KeyUnavailable):
            await room.vault.open(version)


async def test_its_health_is_nobodys_concern(pair: Any, local: str) -> None:
    """Neither probes nor numbers count a key that cannot be up or down."""
    async with opened([pair[0], local]) as room:
        assert [known.kms_key for known in room.vault.health()] == [local]


async def test_with_the_paper_back_it_opens_what_others_lost(pair: Any, local: str, tmp_path: Path) -> None:
    """All KMS keys gone, a fresh one beside the recovery key: values open, and the data key is wrapped for both."""
    async with opened([local, pair[0]]) as room:
        await room.add_data_key()
        version = await room.put(b"value")
        known = room.data_keys
    create_key_file(tmp_path / "fresh.key")
    fresh = f"local:{tmp_path / 'fresh.key'}"
    async with opened([pair[1], fresh], known) as room:
        assert (await room.vault.open(version)).reveal() == b"value"
        known["dk"] = await room.vault.rewrap(known["dk"], [pair[1], fresh])
    async with opened([pair[0], fresh], known) as room:
        assert (await room.vault.open(version)).reveal() == b"value"
        assert room.alarms == []


async def test_the_root_key_is_wrapped_for_it(pair: Any, local: str) -> None:
    """The root of a lost KMS opens with the private half, and not without."""
    async with open_kms(local) as kms, open_kms(pair[0]) as recovery:
        record, root = await create_root(kms=[kms, recovery], now=NOW)
        with pytest.raises(StartRefused, match=r"no key in kms\.keys has wrapped"):
            await open_root(record=record, kms=[recovery], expected_cluster_id=root.cluster_id)
    async with open_kms(pair[1]) as back:
        again = await open_root(record=record, kms=[back], expected_cluster_id=root.cluster_id)
    assert again.derive("x") == root.derive("x")


def _wraps(*uris: str) -> list[WrapRecord]:
    return [WrapRecord(kms_key=uri, key_version="", blob=uri.encode()) for uri in uris]


@pytest.mark.parametrize(
    ("wrapped_by", "configured", "asked"),
    [
        (["a:1", "b:1"], ["b:1", "a:1"], [("b:1", "b:1"), ("a:1", "a:1")]),
        (["a:1", "r:P"], ["r:P?key=f", "a:2"], [("r:P?key=f", "r:P")]),
        (["k:x?region=eu"], ["k:x?region=us", "k:x?region=eu"], [("k:x?region=eu", "k:x?region=eu")]),
        (["a:1?f=1"], ["a:1?f=2"], [("a:1?f=2", "a:1?f=1")]),
        (["a:1", "b:1"], ["a:2"], [("a:2", "a:1")]),
        (["a:1"], ["b:1"], []),
    ],
)
def test_who_is_asked_for_which_wrap(
    wrapped_by: list[str], configured: list[str], asked: list[tuple[str, str]]
) -> None:
    """By name, then by the same key with other options, and by kind only where no key is known by name."""
    found = openable(_wraps(*wrapped_by), configured)
    assert [(wrap.kms_key, wrap.blob.decode()) for wrap in found] == asked


class Held:
    """A KMS key whose unwraps wait until they are let through."""

    def __init__(self, inner: Kms) -> None:
        self._inner = inner
        self.reached = asyncio.Event()
        self.through = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def unwrap(self, *arguments: Any) -> bytes:
        self.reached.set()
        await self.through.wait()
        return await self._inner.unwrap(*arguments)


async def test_a_key_that_leaves_is_let_go_after_its_calls(local: str, tmp_path: Path) -> None:
    """Letting go waits for the call under way, which succeeds; what comes later is not asked of that key."""
    create_key_file(tmp_path / "second.key")
    second = f"local:{tmp_path / 'second.key'}"
    async with opened([local, second]) as room:
        await room.add_data_key()
        version = await room.put(b"value")
        room.vault.flush()
        held = Held(room.kms[local])
        await room.vault.let_go(local)
        room.kms[local] = held
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(room.vault.open(version))
            await held.reached.wait()
            del room.kms[local]
            room.defaults.remove(local)
            room.vault.follow(VaultSettings())
            leaving = group.create_task(room.vault.let_go(local))
            assert (await room.vault.open(version)).reveal() == b"value"
            assert not leaving.done()
            held.through.set()
        assert opening.result().reveal() == b"value"


async def test_a_gate_stays_while_its_key_does(local: str) -> None:
    """What is known of a KMS key survives a reload that keeps it."""
    async with opened([local]) as room:
        await room.vault.probe(lately_s=60)
        room.vault.follow(VaultSettings())
        assert [known.answered_s_ago for known in room.vault.health()] == [0.0]
