"""kill -9 of a serving process around a value that is made for a lease: the next one ends what nobody has."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.audit.entries import IssuedEnded, IssuedFailed
from storage.records import IssuedRecord

NAME = "db/reports"
HERE = {"rotation__hosts": "127.0.0.1"}


@pytest.fixture
async def far(postgres: Any, issued_from: Any, tcp_proxies: Any) -> AsyncIterator[Any]:
    """A database on the server of this run, over a network that can stand still."""
    there = issued_from.Upstream(postgres, await asyncio.to_thread(postgres.create))
    await asyncio.to_thread(there.found)
    async with tcp_proxies.proxying("127.0.0.1", there.port) as network:
        there.port, there.network = network.port, network
        yield there
        network.mend()


@pytest.fixture
async def founded_house(open_house: Any, prepare: Any, far: Any) -> tuple[Path, Any]:
    """The configuration of a broker whose worker ci-1 may lease logins, and the worker."""
    async with open_house() as house:
        who = await prepare(house)
        await house.grant("worker:ci-1", "db/*", 60, 600)
        await far.attach(house)
        return house.config, who


class Database:
    """The broker's file, as another process sees it."""

    def __init__(self, config: Path) -> None:
        [self.path] = config.parent.glob("*.db")

    def issued(self) -> list[tuple[str, str, int]]:
        """Lease, state and attempts of each value on record."""
        with self._opened() as connection:
            found: list[tuple[str, str, int]] = connection.execute(
                "SELECT lease, state, attempt FROM issued"
            ).fetchall()
        return found

    @contextmanager
    def held(self) -> Any:
        """Nobody else writes meanwhile."""
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def _opened(self) -> Any:
        connection = sqlite3.connect(self.path, timeout=20, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()


@asynccontextmanager
async def connected(wire: Any, url: str, who: Any) -> AsyncIterator[Any]:
    """The worker, welcomed."""
    async with wire.dial(url) as worker:
        assert (await worker.handshake(who))["type"] == "welcome"
        yield worker


async def nothing_left(house_parts: Any, database: Database, far: Any) -> None:
    async def nothing() -> bool:
        return not database.issued() and not await far.logins()

    await house_parts.until(nothing, 60)


async def test_a_kill_between_making_and_granting_leaves_no_login(
    *, founded_house: Any, far: Any, house_parts: Any, wire: Any, serving: Any, open_house: Any
) -> None:
    """The login is there, its lease is not: the next process finds the row, drops the login, and says it was lost."""
    config, who = founded_house
    database, log = Database(config), config.parent / "serve.log"
    far.network.thawed.clear()
    async with serving(config, log, **HERE) as broker, connected(wire, broker.url, who) as worker:
        await worker.send(type="lease", id=1, token=NAME)
        await house_parts.until(lambda: [row[1] for row in database.issued()] == ["making"])
        with database.held():
            far.network.mend()

            async def made() -> bool:
                return len(await far.logins()) == 1

            await house_parts.until(made)
            await broker.kill()
    [(lease, state, _)] = database.issued()
    assert state == "making"
    async with serving(config, log, **HERE):
        await nothing_left(house_parts, database, far)
    async with open_house() as house:
        [failed] = await house.entries(IssuedFailed)
        assert (failed.lease, failed.step, failed.code) == (lease, "make", "lost")
        assert [entry.lease for entry in await house.entries(IssuedEnded)] == [lease]
        assert (await house.verified()).ok


async def test_a_kill_while_a_login_is_ended_ends_it_all_the_same(
    *, founded_house: Any, far: Any, house_parts: Any, wire: Any, serving: Any, open_house: Any
) -> None:
    """The attempt is on record before upstream hears of it; the next process makes another, and the login is gone."""
    config, who = founded_house
    database, log = Database(config), config.parent / "serve.log"
    async with serving(config, log, **HERE) as broker, connected(wire, broker.url, who) as worker:
        granted = await worker.lease(NAME)
        far.network.thawed.clear()
        await worker.ask("release", leases=[granted["lease"]])
        await house_parts.until(lambda: database.issued() == [(granted["lease"], "ending", 1)])
        await broker.kill()
    far.network.mend()
    assert await far.works(granted["value"])
    async with serving(config, log, **HERE):
        await nothing_left(house_parts, database, far)
    async with open_house() as house:
        assert not (await house.storage.select(IssuedRecord)).records
        [ended] = await house.entries(IssuedEnded)
        assert (ended.lease, ended.attempts) == (granted["lease"], 2)
        assert (await house.verified()).ok
    assert "Traceback" not in log.read_text()
