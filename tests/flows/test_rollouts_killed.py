"""A rollout goes on after kill -9: in the process that is started again, and on another replica."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.setup.layout import Layout
from storage.catalog import open_storage
from storage.records import ClaimRecord

PATH = "/v1/tokens/github/ci/-/rollout"
TERMS = {"version": 2, "shares": [3000, 10_000], "bake_s": 0, "wait_s": 60, "retire": "never", "deadline_s": 600}


class Operator:
    """Asks whichever broker is named. found: the rollout as it was seen last."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self.found: dict[str, Any] = {}

    async def begin(self, url: str) -> None:
        async with self._http.post(f"{url}{PATH}", json=TERMS) as answer:
            assert answer.status == 201, await answer.text()

    async def has_ended(self, url: str) -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._http.get(f"{url}{PATH}", timeout=aiohttp.ClientTimeout(total=5)) as answer:
                if answer.status == 200:
                    self.found = await answer.json()
        return self.found.get("ended_at") is not None


@pytest.fixture
async def operator(request: pytest.FixtureRequest, founded: Layout) -> AsyncIterator[Operator]:
    """The first admin of the cluster that the test uses."""
    shared: Path | None = request.getfixturevalue("shared") if "shared" in request.fixturenames else None
    profile = founded.profile if shared is None else shared.parent / "profile.toml"
    credential = tomllib.loads(profile.read_text())["credential"]
    # A connection that is kept would break with its replica, and the next question with it.
    connector = aiohttp.TCPConnector(force_close=True)
    headers = {"Authorization": f"Bearer {credential}"}
    async with aiohttp.ClientSession(headers=headers, connector=connector) as http:
        yield Operator(http)


@pytest.mark.parametrize("answer", ["silent", "applied"])
async def test_a_killed_broker_goes_on_with_a_rollout(
    *,
    open_house: Any,
    prepare: Any,
    wire: Any,
    players: Any,
    serving: Any,
    house_parts: Any,
    operator: Operator,
    answer: str,
) -> None:
    """Before an answer came, or after: who comes back has his step, nobody is taken for lost, and it ends well."""
    async with open_house() as house:
        await prepare(house)
        hired = await players.hired(house, wire, 12)
        await house.put("github/ci", b"two", stage="pending")
        config = house.config
    log = config.parent / "serve.log"
    async with serving(config, log) as broker, players.playing(hired, wire, lambda _: broker.url) as crew:
        canary = players.canaries(crew, 2, 3000)
        canary[0].answers[2] = answer
        canary[1].answers[2] = "silent"
        await operator.begin(broker.url)
        await house_parts.until(lambda: all(player.got == [2] for player in canary))
        await broker.kill()
    canary[0].answers.clear()
    canary[1].answers.clear()
    async with serving(config, log) as broker, players.back(crew, hired, wire, broker.url):
        await house_parts.until(lambda: operator.has_ended(broker.url), 60)
        assert (operator.found["state"], operator.found["confirmed"]) == ("done", 12)
        assert operator.found["unanswered"] == []


async def test_a_failure_that_was_said_before_the_kill_still_takes_it_back(
    *, open_house: Any, prepare: Any, wire: Any, players: Any, serving: Any, house_parts: Any, operator: Operator
) -> None:
    """Although the worker that said so never comes back."""
    async with open_house() as house:
        await prepare(house)
        hired = await players.hired(house, wire, 12)
        await house.put("github/ci", b"two", stage="pending")
        config = house.config
    log = config.parent / "serve.log"
    async with serving(config, log) as broker, players.playing(hired, wire, lambda _: broker.url) as crew:
        canary = players.canaries(crew, 2, 3000)
        for player in canary:
            player.answers[2] = "failed"
        await operator.begin(broker.url)
        await house_parts.until(lambda: all(player.got[:1] == [2] for player in canary))
        await broker.kill()
    others = [who for who in hired if crew[who.name] not in canary]
    async with serving(config, log) as broker, players.back(crew, others, wire, broker.url):
        await house_parts.until(lambda: operator.has_ended(broker.url), 60)
        assert operator.found["state"] == "rolled_back"
        assert all(not crew[who.name].got for who in others)


async def test_another_replica_goes_on_when_the_driving_one_dies(
    *, shared: Path, open_replica: Any, wire: Any, players: Any, serving: Any, house_parts: Any, operator: Operator
) -> None:
    """kill -9 of the one that has the claim: its workers come back to the other, which ends the rollout."""
    async with open_replica("zero") as house:
        hired = await players.hired(house, wire, 12)
        await house.put("github/ci", b"one")
        await house.put("github/ci", b"two", stage="pending")
    storage_url = tomllib.loads(shared.read_text())["storage"]["url"]
    log = shared.parent / "serve.log"
    async with (
        serving(shared, log, server__instance="one") as one,
        serving(shared, log, server__instance="two") as two,
        open_storage(storage_url) as storage,
    ):
        urls = (one.url, two.url)
        async with players.playing(hired, wire, lambda number: urls[number % 2]) as crew:
            canary = players.canaries(crew, 2, 3000)
            canary[0].answers[2] = "silent"
            await operator.begin(one.url)
            await house_parts.until(lambda: all(player.got == [2] for player in canary))

            async def is_driven() -> bool:
                claim = await storage.get(ClaimRecord, ("rotation",))
                return claim is not None and bool(claim.life)

            await house_parts.until(is_driven)
            claim = await storage.get(ClaimRecord, ("rotation",))
            dead, left = (one, two) if claim.instance == "one" else (two, one)
            orphans = [who for number, who in enumerate(hired) if urls[number % 2] == dead.url]
            await dead.kill()
            canary[0].answers.clear()
            async with players.back(crew, orphans, wire, left.url):
                if crew[canary[0].name].name not in {who.name for who in orphans}:
                    await canary[0].worker.send(type="ack", lease=canary[0].lease, version=2, status="applied")
                await house_parts.until(lambda: operator.has_ended(left.url), 90)
                assert (operator.found["state"], operator.found["confirmed"]) == ("done", 12)
                assert operator.found["unanswered"] == []
