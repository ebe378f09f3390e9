"""Values move under the active data key, and nothing else about them changes; then the former data key can go."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.admin.asked import NewVersion
from broker.admin.errors import InUse, PreconditionFailed, RevealByKms
from broker.admin.once import NO_ASIDE, Aside
from broker.audit.entries import KeyChanged
from broker.errors import BrokerError, NotFound
from storage.records import DataKeyRecord, TokenRecord, VersionRecord

ROOT = "admin:root"


async def put(house: Any, token: str, value: bytes = b"x", **more: Any) -> Any:
    return (await house.services.putter.put(NewVersion(token=token, value=value, **more), actor=ROOT)).version


async def reseal(house: Any, *, after: Any = None, limit: int = 500) -> Any:
    """One call, after the time that the values of the one before may take."""
    await house.clock.advance(1.0)
    return await at_rate(house, 10_000, after=after, limit=limit)


async def at_rate(house: Any, rate_per_s: int, *, after: Any = None, limit: int = 500) -> Any:
    return await house.services.resealer.reseal("default", after=after, limit=limit, rate_per_s=rate_per_s, actor=ROOT)


async def rotate(house: Any) -> str:
    """Rotate; the data key that was active until now."""
    before: str = house.services.keys.keyring("default").active_data_key
    await house.services.keys.rotate("default", actor=ROOT)
    return before


async def rows(house: Any, kind: Any = VersionRecord) -> list[Any]:
    page = await house.broker.storage.select(kind)
    assert page.next is None
    records: list[Any] = page.records
    return records


async def values(house: Any) -> dict[Any, bytes]:
    """Every value that there is, opened."""
    return {
        row.key: (await house.broker.vault.open(row)).reveal() for row in await rows(house) if row.stage != "destroyed"
    }


async def in_every_stage(house: Any) -> None:
    """A token with a version in each stage."""
    for number in range(4):
        await put(house, "a/b", b"%d" % number)
    await house.services.tokens.destroy("a/b", 1, actor=ROOT)
    await put(house, "a/b", b"next", stage="pending")


async def test_values_of_every_stage_move_and_stay_what_they_are(house: Any) -> None:
    """Same token, version, stage, type and value, under the active data key; the tokens' own rows are not touched."""
    await in_every_stage(house)
    await put(house, "big", b"v" * 65_536)
    old = await rotate(house)
    before, heads, plain = await rows(house), await rows(house, TokenRecord), await values(house)
    done = await reseal(house)
    assert (done.values, done.failed, done.remaining, done.counted_all, done.next) == (5, (), 0, True, None)
    after = await rows(house)
    assert {row.stage for row in after} == {"destroyed", "retired", "previous", "current", "pending"}

    def untouched(row: VersionRecord) -> Any:
        return row.key, row.stage, row.content_type, row.created_at, row.created_by, row.fmt

    assert [untouched(row) for row in after] == [untouched(row) for row in before]
    active = house.services.keys.keyring("default").active_data_key
    assert {row.data_key for row in after if row.stage != "destroyed"} == {active} != {old}
    assert await rows(house, TokenRecord) == heads
    assert await values(house) == plain
    assert await house.broker.authority.check() == []


async def test_a_batch_is_one_entry(house: Any) -> None:
    """The log has how many values left which data key, one entry a call, and none for a call that moved nothing."""
    for number in range(5):
        await put(house, f"t/{number}")
    old = await rotate(house)
    first = await reseal(house, limit=3)
    await reseal(house, after=first.next)
    await reseal(house)
    entries = [entry for entry in await house.recorded() if isinstance(entry, KeyChanged)]
    resealed = [(entry.keyring, entry.data_key, entry.values) for entry in entries if entry.change == "resealed"]
    assert resealed == [("default", old, 3), ("default", old, 2)]


async def test_a_walk_goes_over_every_former_data_key(house: Any) -> None:
    """Small calls one after another reach all rows, and count down to nothing."""
    for turn in range(3):
        for number in range(3):
            await put(house, f"t/{turn}{number}")
        await rotate(house)
    after, left = None, []
    while True:
        done = await reseal(house, after=after, limit=2)
        left.append(done.remaining)
        if (after := done.next) is None:
            break
    assert left == [7, 6, 4, 3, 1, 0]


async def test_a_destroyed_version_keeps_no_data_key(house: Any) -> None:
    """Destroying a version takes its data key's name from its row, so it holds up no destruction."""
    await put(house, "a/b")
    await put(house, "a/b")
    await house.services.tokens.destroy("a/b", 1, actor=ROOT)
    assert [row.data_key == "" for row in await rows(house)] == [True, False]


async def test_rows_that_nobody_signed_are_left_and_told(house: Any, tmp_path: Path) -> None:
    """A row altered by hand is not made rightful by sealing it anew; the others move."""
    for number in range(3):
        await put(house, f"t/{number}")
    await rotate(house)
    with closing(sqlite3.connect(tmp_path / "broker.db")) as connection, connection:
        connection.execute("UPDATE version SET content_type = 'text/x' WHERE token = 't/1'")
    done = await reseal(house)
    assert (done.values, done.remaining, done.next) == (2, 1, None)
    assert [(each.place.token, each.error.code) for each in done.failed] == [("t/1", "tampered")]


async def test_it_goes_no_faster_than_told(house: Any) -> None:
    """At ten a second the second ten begin a second after the first; nothing is taken of a call that found nothing."""
    for number in range(20):
        await put(house, f"t/{number:02}")
    await rotate(house)
    active = house.services.keys.keyring("default").active_data_key
    first = await at_rate(house, 10)
    assert (first.values, first.remaining) == (10, 10)
    async with asyncio.TaskGroup() as tasks:
        second = tasks.create_task(at_rate(house, 10, after=first.next))
        await house.clock.advance(0.9)
        assert not second.done()
        assert [row.data_key for row in await rows(house)].count(active) == 10
        await house.clock.advance(0.2)
        async with asyncio.timeout(5):
            assert (await second).remaining == 0
    await house.clock.advance(1.0)
    async with asyncio.timeout(5):
        await at_rate(house, 1)
        await at_rate(house, 1)


async def test_every_value_opens_at_every_moment(house: Any) -> None:
    """Somebody who reads all rows again and again, while they are moved twice, opens each of them each time."""
    for number in range(60):
        await put(house, f"t/{number:02}", b"%d" % number)
    plain = await values(house)
    moved = asyncio.Event()
    looks = 0

    async def look() -> None:
        nonlocal looks
        while not moved.is_set():
            assert await values(house) == plain
            looks += 1

    async def move() -> None:
        for _ in range(2):
            old, after = await rotate(house), None
            while True:
                done = await reseal(house, after=after, limit=7)
                if (after := done.next) is None:
                    break
            await house.services.retirer.destroy(old, actor=ROOT)
        moved.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(look())
        tasks.create_task(move())
    assert looks > 3


async def test_changes_made_meanwhile_are_neither_lost_nor_undone(house: Any) -> None:
    """Puts, promotions and destructions beside a reseal all count; what they changed is left for the next walk."""
    for number in range(40):
        await put(house, f"t/{number:02}", b"one")
        await put(house, f"t/{number:02}", b"two")
    old = await rotate(house)

    async def meddle() -> None:
        for number in range(40):
            token = f"t/{number:02}"
            if number % 3 == 0:
                await put(house, token, b"three")
            elif number % 3 == 1:
                await house.services.tokens.promote(token, 1, actor=ROOT)
            else:
                await house.services.tokens.destroy(token, 1, actor=ROOT)

    async def move() -> None:
        for _ in range(50):
            after = None
            while True:
                done = await reseal(house, after=after, limit=9)
                if (after := done.next) is None:
                    break
            if not done.remaining:
                return

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(meddle())
        tasks.create_task(move())
    await move()
    await house.services.retirer.destroy(old, actor=ROOT)
    found = {row.key: row.stage for row in await rows(house)}
    opened = await values(house)
    for number in range(40):
        token = f"t/{number:02}"
        if number % 3 == 0:
            assert (opened[token, 3], found[token, 2]) == (b"three", "previous")
        elif number % 3 == 1:
            assert (opened[token, 1], found[token, 1], found[token, 2]) == (b"one", "current", "previous")
        else:
            assert (found[token, 1], opened[token, 2]) == ("destroyed", b"two")
    assert await house.broker.authority.check() == []


async def test_a_keyring_that_is_rotated_meanwhile_leaves_no_row_behind(house: Any) -> None:
    """Rows sealed under a key that has stopped being the active one are not committed; the next walk moves them."""
    for number in range(30):
        await put(house, f"t/{number:02}")
    await rotate(house)
    await asyncio.gather(reseal(house), rotate(house), reseal(house))
    while (await reseal(house)).remaining:
        pass
    active = house.services.keys.keyring("default").active_data_key
    assert {row.data_key for row in await rows(house)} == {active}
    assert len(await values(house)) == 30


async def test_a_data_key_is_destroyed_when_nothing_is_sealed_under_it(house: Any) -> None:
    """Its wraps are gone, for good, on record; values moved away from it open as before."""
    await put(house, "a/b", b"kept")
    old = await rotate(house)
    await reseal(house)
    record = await house.services.retirer.destroy(old, actor=ROOT)
    assert (record.state, record.wraps) == ("destroyed", ())
    stored = await house.broker.storage.get(DataKeyRecord, (old,))
    assert stored.wraps == ()
    again = await house.services.retirer.destroy(old, actor=ROOT)
    assert again.rev == record.rev
    changes = [entry.change for entry in await house.recorded() if isinstance(entry, KeyChanged)]
    assert changes.count("destroyed") == 1
    assert await values(house) == {("a/b", 1): b"kept"}


async def test_a_data_key_that_seals_or_has_sealed_is_not_destroyed(house: Any) -> None:
    """The active one, and one with versions, ten of which are named with how many there are."""
    for number in range(12):
        await put(house, f"t/{number:02}")
    active = house.services.keys.keyring("default").active_data_key
    with pytest.raises(InUse, match="active"):
        await house.services.retirer.destroy(active, actor=ROOT)
    await rotate(house)
    with pytest.raises(InUse, match=r"12 versions .* t/09 version 1 and 2 more; run `key rewrap --values`"):
        await house.services.retirer.destroy(active, actor=ROOT)
    assert len(await values(house)) == 12


async def test_destroying_takes_a_condition_and_a_name(house: Any) -> None:
    """Another revision than the one named, and a data key that there is not, are refused."""
    old = await rotate(house)
    with pytest.raises(PreconditionFailed):
        await house.services.retirer.destroy(old, actor=ROOT, if_match=77)
    with pytest.raises(NotFound):
        await house.services.retirer.destroy("none", actor=ROOT)


async def test_a_value_on_its_way_under_a_key_that_is_destroyed_is_sealed_again(house: Any) -> None:
    """A put that sealed, and commits after its data key was rotated away and destroyed, ends under the active one."""
    await put(house, "other")
    ended: list[str] = []

    async def once(_made: str) -> Aside:
        if not ended:
            ended.append(await rotate(house))
            await reseal(house)
            await house.services.retirer.destroy(ended[0], actor=ROOT)
        return NO_ASIDE

    new = NewVersion(token="a/b", value=b"late")
    version = (await house.services.putter.put(new, actor=ROOT, once=once)).version
    assert version.data_key == house.services.keys.keyring("default").active_data_key != ended[0]
    assert (await values(house))["a/b", 1] == b"late"


async def test_a_keyring_that_runs_out_of_seals_rotates_by_itself(house: Any) -> None:
    """The put that finds the data key nearly spent rotates first, at whatever time of the hour."""
    await put(house, "a/b")
    (key,) = house.broker.authority.data_keys
    spent = msgspec.structs.replace(key, rev=key.rev + 1, seals_reserved=2**30, mac=b"")
    await house.broker.authority.commit((), updates=[spent])
    version = await put(house, "a/b")
    assert version.data_key != key.id
    assert house.services.keys.data_key(key.id).state == "open"


async def test_operators_are_not_shown_what_the_kms_gives_to_workers(house: Any) -> None:
    """Revealing from a keyring that authorises at its KMS is denied, says why, and records no revealing."""
    await house.services.keys.add_keyring("payments", kms_keys=(), authorize="kms", actor=ROOT)
    await put(house, "pay/stripe", keyring="payments")
    with pytest.raises(RevealByKms, match=r"payments.*lease it as a worker"):
        await house.services.revealer.reveal("pay/stripe", version=None, actor=ROOT)
    assert "token.revealed" not in {type(entry).__struct_config__.tag for entry in await house.recorded()}


async def test_a_silent_kms_ends_a_walk_and_costs_nothing(house: Any, tmp_path: Path) -> None:
    """The call is refused as unavailable and no row has changed; when the KMS is back, the walk goes on."""
    await put(house, "a/b")
    await rotate(house)
    before = await rows(house)
    (tmp_path / "kms.key").rename(tmp_path / "away")
    house.broker.vault.flush()
    with pytest.raises(BrokerError) as refused:
        await reseal(house)
    assert refused.value.code == "unavailable"
    assert await rows(house) == before
    (tmp_path / "away").rename(tmp_path / "kms.key")
    await house.clock.advance(60)
    assert (await reseal(house)).remaining == 0
