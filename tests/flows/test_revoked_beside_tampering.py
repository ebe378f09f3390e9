"""Somebody revoked, with a helper at the database: nothing that the helper spoils keeps a right or fetches a value."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.admin.asked import NewVersion

ACTOR = "admin:root"
HIDE = 'CREATE TRIGGER hide AFTER INSERT ON feed BEGIN DELETE FROM feed WHERE "position" = NEW."position"; END'
SPOIL = "UPDATE manifest SET count = count + 1 WHERE kind = 'enrolment'"
Revoke = Callable[[Any], Awaitable[object]]


def edit(config: Path, statement: str) -> None:
    """What somebody with access to the file may do."""
    with sqlite3.connect(config.parent / "broker.db") as database:
        database.execute(statement)
    database.close()


async def remove_grant(house: Any) -> object:
    return await house.services.grants.remove(house.granted.id, actor=ACTOR)


async def disable_worker(house: Any) -> object:
    return await house.services.workers.disable("ci-1", actor=ACTOR)


async def disable_token(house: Any) -> object:
    return await house.services.tokens.disable("github/ci", actor=ACTOR)


@pytest.mark.parametrize("revoke", [remove_grant, disable_worker, disable_token])
async def test_a_revocation_arrives_though_its_line_is_taken_out_of_the_feed(
    house: Any, welcomed: Any, config: Path, revoke: Revoke
) -> None:
    """The holder is told within a second, and asking again gives nothing."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        edit(config, HIDE)
        await revoke(house)
        pushed = await worker.push(within_s=1)
        assert (pushed["type"], pushed["leases"]) == ("revoked", [lease])
        if revoke is not disable_worker:  # whose connection ends
            assert (await worker.ask("lease", token="github/ci"))["code"] in {"denied", "not_found"}


@pytest.mark.parametrize("revoke", [remove_grant, disable_worker, disable_token])
async def test_a_revocation_arrives_though_another_table_is_spoilt(
    house: Any, welcomed: Any, config: Path, revoke: Revoke
) -> None:
    """One row that nobody can believe holds up no row that everybody can."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        edit(config, SPOIL)
        await house.until(lambda: bool(house.broker.feed.tampered))
        await revoke(house)
        pushed = await worker.push(within_s=1)
        assert (pushed["type"], pushed["leases"]) == ("revoked", [lease])


async def test_no_value_is_pushed_while_nobody_knows_who_may_have_it(house: Any, welcomed: Any, config: Path) -> None:
    """A rotation waits while rows are under suspicion, and is pushed once they are mended."""
    async with welcomed(house) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        edit(config, SPOIL)
        await house.until(lambda: bool(house.broker.feed.tampered))
        await house.services.putter.put(NewVersion(token="github/ci", value=b"two"), actor=ACTOR)
        assert await worker.silent(1.5)
        edit(config, SPOIL.replace("+", "-"))
        pushed = await worker.push(within_s=3)
        assert (pushed["type"], pushed["lease"], pushed["value"]) == ("rotated", lease, "two")


async def test_no_value_is_pushed_by_the_very_look_that_finds_the_tampering(
    house: Any, welcomed: Any, config: Path
) -> None:
    """The change of the token and the spoilt row may be met at once: then the value waits as well."""
    async with welcomed(house) as worker:
        await worker.lease("github/ci")
        house.storage.deaf = True
        edit(config, SPOIL)
        await house.services.putter.put(NewVersion(token="github/ci", value=b"two"), actor=ACTOR)
        house.storage.deaf = False
        await house.until(lambda: bool(house.broker.feed.tampered))
        assert await worker.silent(1.5)
