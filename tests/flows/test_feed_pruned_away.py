"""A replica that was deaf until changes were forgotten: it reads everything again before it gives anything."""

from __future__ import annotations

from typing import Any

import pytest

from broker import housekeeping
from storage.records import ReplicaRecord

ROOT = "admin:root"


async def test_what_it_missed_has_all_its_effects(pair: Any, welcomed: Any) -> None:
    """Rotated values are pushed, what lost its grant or was revoked is revoked, and keys are proved again."""
    one, two = pair
    await one.put("github/rotated", b"one")
    await one.put("aws/removed", b"one")
    await one.put("github/revoked", b"one")
    removed = await one.grant("worker:ci-1", "aws/*")
    await two.settled()
    async with welcomed(two) as worker:
        leases = {
            name: (await worker.lease(name))["lease"] for name in ("github/rotated", "aws/removed", "github/revoked")
        }
        keys = two.broker.vault.counters.misses
        two.storage.deaf = True
        await one.put("github/rotated", b"two")
        await one.services.grants.remove(removed.id, actor=ROOT)
        await one.broker.leases.revoke(
            lease=leases["github/revoked"], token=None, worker=None, reason="leaked", actor=ROOT, wait_s=0
        )
        await one.grant("worker:ci-1", "later/*")
        await one.put("later/one", b"later")
        await one.storage.prune_feed(await one.storage.position() - 1)
        two.storage.deaf = False
        pushes = [await worker.push() for _ in range(3)]
        told = {push["type"]: push for push in pushes}
        assert [push["value"] for push in pushes if push["type"] == "rotated"] == ["two"]
        revoked = {lease for push in pushes if push["type"] == "revoked" for lease in push["leases"]}
        assert revoked == {leases["aws/removed"], leases["github/revoked"]}
        assert told.keys() == {"rotated", "revoked"}
        assert (await worker.lease("later/one"))["value"] == "later"
        assert two.broker.vault.counters.misses > keys
    await two.settled()
    assert two.broker.feed.trouble == ""


async def test_nothing_is_given_before_all_is_read(pair: Any, welcomed: Any) -> None:
    """From the moment the gap is seen until it is closed, grants are refused."""
    one, two = pair
    async with welcomed(two) as worker:
        two.storage.deaf = True
        await one.put("github/other", b"other")
        await one.grant("worker:ci-1", "aws/*")
        await one.storage.prune_feed(await one.storage.position() - 1)
        position = two.storage.inner.position
        stuck = []

        async def never() -> int:
            stuck.append(await worker.ask("lease", token="github/other"))
            raise TimeoutError

        two.storage.position = never
        two.storage.deaf = False
        await two.until(lambda: len(stuck) > 0)
        assert stuck[0]["code"] == "unavailable"
        two.storage.position = position
        await two.until(lambda: two.broker.feed.trouble == "")
        await worker.lease("github/other")


async def test_what_a_living_replica_has_not_read_is_kept(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruning stops at the slowest living replica, up to a bound; a dead one holds up nothing."""
    one, two = pair
    monkeypatch.setattr(housekeeping, "_FEED_KEPT", 1)
    keeper = one.broker.housekeeping
    two.storage.deaf = True
    read = two.broker.feed.position
    for number in range(5):
        await one.put(f"github/t{number}")
    newest = await one.storage.position()

    async def told() -> bool:
        row = await one.storage.get(ReplicaRecord, ("two",))
        return row.position == read

    await one.until(told)
    assert await keeper._unread() == read
    monkeypatch.setattr(housekeeping, "_FEED_MAX", 3)
    assert await keeper._unread() == newest - 3
    row = await one.storage.get(ReplicaRecord, ("two",))
    await one.broker.roll._end(row)
    two.storage.deaf = False
    monkeypatch.setattr(housekeeping, "_FEED_MAX", 1_000_000)
    row = await one.storage.get(ReplicaRecord, ("two",))
    assert await keeper._unread() == (newest - 1 if row is None or row.ended_at is not None else read)
