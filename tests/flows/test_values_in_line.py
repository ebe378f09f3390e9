"""A request that was decided, lost its place to another replica and stands in line again has no value meanwhile."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from broker.leases.granting import Grant
from storage.port import Commit
from storage.records import SeatRecord

POOL = "github/bots"


def texts_of(grant: Grant) -> set[str]:
    """Every text that it refers to, by itself or in tuples."""
    found, left = set(), [grant]
    while left:
        for each in gc.get_referents(left.pop()):
            if isinstance(each, str):
                found.add(each)
            elif isinstance(each, tuple):
                left.append(each)
    return found


def grants() -> list[Grant]:
    return [each for each in gc.get_objects() if isinstance(each, Grant) and each.token == POOL]


async def test_a_place_that_was_lost_takes_its_value_with_it(
    house: Any, welcomed: Any, prepare: Any, pooled: Any
) -> None:
    """The value is there while the place is being written, and gone once another replica has it."""
    await pooled(house, prepare, members=1)
    async with welcomed(house) as one, welcomed(house, "ci-2") as two:
        first = await one.lease(POOL)
        (seat,) = (await house.storage.select(SeatRecord, limit=10)).records
        await one.ask("release", leases=[first["lease"]])
        elsewhere = await one.lease("github/ci")
        seated = asyncio.Event()
        house.storage.slow = lambda commit: any(isinstance(row, SeatRecord) for row in commit.written)
        house.storage.gate = seated
        await two.send(type="lease", id=1, token=POOL, wait_s=60)
        await house.until(lambda: house.storage.waiting == 1)
        assert [first["value"] in texts_of(grant) for grant in grants()] == [True]
        row = await house.storage.get(SeatRecord, seat.key)
        taken = SeatRecord(
            rev=row.rev + 1,
            token=row.token,
            member=row.member,
            number=row.number,
            lease=elsewhere["lease"],
            worker="ci-1",
            taken_at=row.taken_at,
        )
        await house.storage.inner.commit(Commit(updates=[taken]))
        seated.set()
        await house.until(lambda: house.broker.desk.lines.waiting().get(POOL) == 1)
        assert [first["value"] in texts_of(grant) for grant in grants()] == [False]
