"""The kill switch with proof: who has wiped, who has not and why, who is offline, and until when each copy lasts."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from storage.records import LeaseRecord

ROOT = "admin:root"
NAME = "github/ci"
CREW = 20
"""Workers of one story: five of each kind."""


async def kill(house: Any, wait_s: float = 30.0) -> Any:
    return await house.broker.leases.revoke(
        lease=None, token=NAME, worker=None, reason="leaked", actor=ROOT, wait_s=wait_s
    )


async def _crew(houses: tuple[Any, ...], prepare: Any, stack: AsyncExitStack, wire: Any) -> dict[str, tuple[Any, str]]:
    """Twenty workers with a lease each, on these replicas in turn: their connections and leases by name."""
    held = {}
    for number in range(CREW):
        name = f"w-{number:02}"
        who = await prepare(houses[0], worker=name)
        for house in houses:
            await house.settled()
        worker = await stack.enter_async_context(wire.dial(houses[number % len(houses)].url))
        await worker.handshake(who)
        held[name] = (worker, (await worker.lease(NAME))["lease"])
    return held


async def _answer(worker: Any, lease: str, status: str, **more: Any) -> None:
    frame = await worker.push()
    assert (frame["type"], frame["leases"]) == ("revoked", [lease])
    await worker.send(type="ack", lease=lease, status=status, **more)


async def _story(houses: tuple[Any, ...], prepare: Any, wire: Any) -> None:
    """Five wipe, five are silent, five say that they could not, five were offline before: the report says who."""
    async with AsyncExitStack() as stack:
        await houses[0].put(NAME, b"s3cret")
        held = await _crew(houses, prepare, stack, wire)
        names = sorted(held)
        wiping, silent, failing, offline = names[:5], names[5:10], names[10:15], names[15:]
        for name in offline:
            await held[name][0].socket.close()

        async def gone() -> bool:
            return sum(row.ended_at is not None for row in await houses[0].sessions()) == len(offline)

        await houses[0].until(gone)
        async with asyncio.TaskGroup() as tasks:
            killing = tasks.create_task(kill(houses[0], wait_s=5.0))
            for name in wiping:
                tasks.create_task(_answer(*held[name], "wiped"))
            for name in failing:
                tasks.create_task(_answer(*held[name], "failed", detail=f"no {name}"))
        report = killing.result()
        assert {ref.worker for ref in report.revoked} == set(names)
        assert sorted(ref.worker for ref in report.wiped) == wiping
        said = {each.ref.worker: (each.state, each.failed, each.detail) for each in report.missing}
        assert said == {
            **dict.fromkeys(silent, ("connected", False, "")),
            **{name: ("connected", True, f"no {name}") for name in failing},
            **dict.fromkeys(offline, ("offline", False, "")),
        }
        rows: dict[str, LeaseRecord] = {row.lease: row for row in await houses[0].leases()}
        for each in report.missing:
            assert each.expires_at == rows[each.ref.lease].expires_at
            assert (each.offline_since is not None) == (each.ref.worker in offline)


async def test_the_report_names_exactly_who_did_not_wipe(open_house: Any, prepare: Any, wire: Any) -> None:
    """Of twenty workers, each is told by what it did."""
    async with open_house() as house:
        await _story((house,), prepare, wire)


async def test_the_report_is_the_same_over_two_replicas(open_replica: Any, prepare: Any, wire: Any) -> None:
    """Whichever of them a worker was connected to."""
    async with open_replica("one") as one, open_replica("two") as two:
        await _story((one, two), prepare, wire)


async def test_nobody_waits_for_who_is_offline(open_house: Any, prepare: Any, welcomed: Any) -> None:
    """An hour's wait is over as soon as all who are connected have wiped."""
    async with open_house() as house:
        await prepare(house)
        async with welcomed(house) as worker:
            await worker.lease(NAME)

        async def gone() -> bool:
            return all(row.ended_at is not None for row in await house.sessions())

        await house.until(gone)
        async with asyncio.timeout(30):
            report = await kill(house, wait_s=3600.0)
        assert [each.state for each in report.missing] == ["offline"]


async def test_a_failure_before_is_not_taken_for_an_answer(open_house: Any, prepare: Any, welcomed: Any) -> None:
    """Who could not use a rotated value and says nothing of the revocation is silent; saying so again is an answer."""
    async with open_house() as house:
        await prepare(house)
        async with welcomed(house) as worker:
            lease = (await worker.lease(NAME))["lease"]
            await house.put(NAME, b"two")
            await worker.push()
            await worker.send(type="ack", lease=lease, status="failed", version=2, detail="no room")

            async def said() -> bool:
                return bool((await house.row(lease)).ack_failed)

            await house.until(said)
            report = await kill(house, wait_s=0.0)
            assert [(each.failed, each.detail) for each in report.missing] == [(False, "")]
            await worker.push()
            await worker.send(type="ack", lease=lease, status="failed", detail="no room")

            async def answered() -> bool:
                row = await house.row(lease)
                return row.failed_at is not None and row.failed_at >= row.ended_at

            await house.until(answered)


async def test_counting_leases_of_sessions_here_reads_no_leases(open_house: Any, prepare: Any, welcomed: Any) -> None:
    """What the sessions of this replica hold is known to it; a session that it does not know is looked up."""
    async with open_house() as house:
        await prepare(house)
        async with welcomed(house) as worker:
            await worker.lease(NAME)
            session = worker.welcome["session"]
            assert await house.broker.leases.count_by_session([session, "another"]) == {session: 1, "another": 0}

            async def walked(*_given: Any, **_options: Any) -> Any:
                raise AssertionError("the leases on record were walked")

            house.storage.select = walked
            assert await house.broker.leases.count_by_session([session]) == {session: 1}
