"""The root key opens only as that of the pinned cluster, and the refusal to start says what to do."""

from __future__ import annotations

import asyncio
import pickle
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.errors import StartRefused
from broker.vault.root import Root, create_root, open_root, rewrap_root
from kms.errors import Denied, KmsError, Unavailable
from kms.guard import GuardedKms
from kms.local import create_key_file, open_local
from kms.port import Wrap
from storage.records import RootRecord, WrapRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def keys(tmp_path: Path) -> AsyncIterator[list[Any]]:
    """Two local keys, open."""
    async with AsyncExitStack() as stack:
        opened = []
        for name in ("a", "b"):
            create_key_file(tmp_path / name)
            opened.append(await stack.enter_async_context(open_local(f"local:{tmp_path / name}")))
        yield opened


class Spoilt:
    """A real key whose unwrap raises, or answers with something else."""

    def __init__(self, inner: Any, *, error: Exception | None = None, reply: bytes | None = None) -> None:
        self._inner = inner
        self._error = error
        self._reply = reply
        self.uri = inner.uri

    async def wrap(self, key: bytes, context: Any) -> Wrap:
        return await self._inner.wrap(key, context)

    async def unwrap(self, wrap: Wrap, context: Any, caller: Any = None) -> bytes:
        if self._error is not None:
            raise self._error
        return self._reply or await self._inner.unwrap(wrap, context, caller)


class Hanging(Spoilt):
    async def unwrap(self, wrap: Wrap, context: Any, caller: Any = None) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_root_opens_as_it_was_made(keys: list[Any]) -> None:
    """The same cluster id and the same derived keys, from either KMS key alone."""
    record, root = await create_root(kms=keys, now=NOW)
    assert [wrap.kms_key for wrap in record.wraps] == [key.uri for key in keys]
    for key in keys:
        again = await open_root(record=record, kms=[key], expected_cluster_id=root.cluster_id)
        assert (again.cluster_id, again.derive("x")) == (root.cluster_id, root.derive("x"))


async def test_each_cluster_has_its_own_id(keys: list[Any]) -> None:
    """52 characters of lower-case base32, that no other cluster has."""
    ids = {(await create_root(kms=keys, now=NOW))[1].cluster_id for _ in range(5)}
    assert len(ids) == 5
    assert all(re.fullmatch(r"[a-z2-7]{52}", each) for each in ids)


def test_labels_separate_derived_keys() -> None:
    """Each label gives other 32 bytes, none of which is the root key or what the cluster id shows."""
    root = Root(b"k" * 32)
    derived = {root.derive(label) for label in ("", "row-mac/v1", "row-mac/v2", "audit-key/v1")}
    assert len(derived) == 4
    assert {len(each) for each in derived} == {32}
    assert b"k" * 32 not in derived


async def test_another_pinned_cluster_refuses_to_start(keys: list[Any]) -> None:
    """A database that is not the pinned cluster's is not served, and both ways out are named."""
    record, root = await create_root(kms=keys, now=NOW)
    with pytest.raises(StartRefused, match=r"cluster\.id is not what init printed.*restore"):
        await open_root(record=record, kms=keys, expected_cluster_id="a" * 52)
    assert root.cluster_id != "a" * 52


async def test_a_planted_root_refuses_to_start(keys: list[Any]) -> None:
    """A root key that somebody wrapped under this cluster's own name, with the public key, is not this cluster's."""
    record, root = await create_root(kms=keys, now=NOW)
    context = {
        "app": "tokenbroker",
        "cluster": root.cluster_id,
        "keyring": "",
        "data_key": "root",
        "purpose": "root",
        "fmt": "1",
    }
    planted = await keys[0].wrap(b"p" * 32, context)
    forged = msgspec.structs.replace(
        record, wraps=(WrapRecord(kms_key=keys[0].uri, key_version=planted.key_version, blob=planted.blob),)
    )
    with pytest.raises(StartRefused, match="restore"):
        await open_root(record=forged, kms=keys, expected_cluster_id=root.cluster_id)


async def test_the_next_kms_key_serves_when_one_is_away(keys: list[Any]) -> None:
    """An outage of the first key does not keep the broker from starting."""
    record, root = await create_root(kms=keys, now=NOW)
    away = Spoilt(keys[0], error=Unavailable("away"))
    opened = await open_root(record=record, kms=[away, keys[1]], expected_cluster_id=root.cluster_id)
    assert opened.derive("x") == root.derive("x")


async def test_a_kms_key_that_hangs_is_passed_over(keys: list[Any]) -> None:
    """No KMS key can hold the start up for longer than its deadline."""
    record, root = await create_root(kms=keys, now=NOW)
    hanging = Hanging(keys[0])
    opened = await open_root(record=record, kms=[hanging, keys[1]], expected_cluster_id=root.cluster_id, call_s=0.05)
    assert opened.cluster_id == root.cluster_id


@pytest.mark.parametrize(
    ("spoil", "remedy"),
    [
        pytest.param({"error": Unavailable("away")}, "Start again when one answers", id="unavailable"),
        pytest.param({"error": Denied("no")}, "Mend its policy", id="denied"),
        pytest.param({"error": RuntimeError("unknown")}, "Mend its policy", id="unknown"),
        pytest.param({"reply": b"x" * 31}, "restore it", id="wrong length"),
        pytest.param({"reply": b"x" * 32}, "restore it", id="another key"),
    ],
)
async def test_what_keeps_the_root_shut_is_said(keys: list[Any], spoil: dict[str, Any], remedy: str) -> None:
    """Each cause names the KMS key and its own remedy."""
    record, root = await create_root(kms=keys[:1], now=NOW)
    with pytest.raises(StartRefused, match=remedy) as caught:
        await open_root(record=record, kms=[Spoilt(keys[0], **spoil)], expected_cluster_id=root.cluster_id)
    assert keys[0].uri in caught.value.message


async def test_a_refusal_is_passed_over_and_told(keys: list[Any]) -> None:
    """A KMS key whose account was closed keeps no broker from starting that has another; operators hear of it."""
    record, root = await create_root(kms=keys, now=NOW)
    refusing = Spoilt(keys[0], error=Denied("no"))
    told: list[KmsError] = []
    opened = await open_root(
        record=record, kms=[refusing, keys[1]], expected_cluster_id=root.cluster_id, tell=told.append
    )
    assert opened.derive("x") == root.derive("x")
    assert [error.kms_key for error in told] == [keys[0].uri]


async def test_every_reason_is_named(keys: list[Any]) -> None:
    """When no KMS key opens the root key, the refusal to start says what each of them said."""
    record, root = await create_root(kms=keys, now=NOW)
    kms = [Spoilt(keys[0], error=Denied("no")), Spoilt(keys[1], error=Unavailable("away"))]
    with pytest.raises(StartRefused, match="Start again when one answers") as caught:
        await open_root(record=record, kms=kms, expected_cluster_id=root.cluster_id)
    for key in keys:
        assert key.uri in caught.value.message


async def test_kms_keys_that_never_wrapped_it_are_named(keys: list[Any]) -> None:
    """Configured with other keys than those of the database, the broker says which it needs."""
    record, root = await create_root(kms=keys[:1], now=NOW)
    with pytest.raises(StartRefused, match=re.escape(keys[0].uri)):
        await open_root(record=record, kms=keys[1:], expected_cluster_id=root.cluster_id)


async def test_a_root_is_made_by_all_kms_keys_or_not_at_all(keys: list[Any]) -> None:
    """A KMS key that wraps and does not open again is found out before anything depends on it."""
    with pytest.raises(StartRefused, match="not wrapped"):
        await create_root(kms=[keys[0], Spoilt(keys[1], error=Denied("no"))], now=NOW)
    with pytest.raises(StartRefused, match="opened the wrap to another"):
        await create_root(kms=[Spoilt(keys[0], reply=b"x" * 32)], now=NOW)
    with pytest.raises(StartRefused, match="at least one"):
        await create_root(kms=[], now=NOW)


async def test_a_root_can_be_wrapped_by_other_kms_keys(keys: list[Any]) -> None:
    """The cluster moves to another KMS and keeps its id, as the next revision of its row."""
    record, root = await create_root(kms=keys[:1], now=NOW)
    others = [GuardedKms(adapter=each, uri=each.uri, deadline_s=5.0) for each in keys[1:]]
    moved = await rewrap_root(record=record, root=root, kms=others)
    assert isinstance(moved, RootRecord)
    assert (moved.rev, moved.created_at) == (2, NOW)
    assert (await open_root(record=moved, kms=keys[1:], expected_cluster_id=root.cluster_id)).cluster_id


def test_a_root_shows_nothing_of_its_key() -> None:
    """Neither repr nor pickle gives it away."""
    root = Root(b"CANARY-root-key-0123456789abcdef")
    assert "CANARY" not in f"{root!r} {root}"
    with pytest.raises(TypeError):
        pickle.dumps(root)


async def test_a_key_file_that_moved_opens_what_it_wrapped(keys: list[Any], tmp_path: Path) -> None:
    """An installation restored in another folder serves with the new path in its configuration, and nothing else."""
    record, root = await create_root(kms=keys[:1], now=NOW)
    moved = (tmp_path / "a").rename(tmp_path / "elsewhere")
    async with open_local(f"local:{moved}") as key:
        opened = await open_root(record=record, kms=[key], expected_cluster_id=root.cluster_id)
    assert opened.derive("x") == root.derive("x")


async def test_another_key_file_opens_nothing_and_is_told_whose_root_it_is(keys: list[Any]) -> None:
    """The refusal names the key that would do."""
    record, root = await create_root(kms=keys[:1], now=NOW)
    with pytest.raises(StartRefused, match=re.escape(keys[0].uri)):
        await open_root(record=record, kms=keys[1:], expected_cluster_id=root.cluster_id)
