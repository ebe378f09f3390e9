"""kill -9 under load, eight times: whatever a worker was granted is on record, in a log that verifies."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import Any

import aiohttp

from broker.audit.entries import LeaseGranted

KILLS = 8
WORKERS = 4
TOKENS = 12


class Diary:
    """What the workers were told."""

    def __init__(self) -> None:
        self.granted: dict[str, tuple[str, str, int]] = {}
        self.released: set[str] = set()
        self.lost: list[str] = []


async def work(url: str, who: Any, wire: Any, diary: Diary, hands: dict[str, Any]) -> None:
    """Lease, renew and release without a pause until the connection breaks; `hands` is what the worker still holds."""
    with contextlib.suppress(wire.Closed, aiohttp.ClientError, ConnectionError):
        async with wire.dial(url) as worker:
            if (await worker.handshake(who))["type"] != "welcome":
                return
            if hands:
                stated = [{"lease": held["lease"], "version": held["version"]} for held in hands.values()]
                answer = await worker.ask("resume", leases=stated)
                diary.lost += [f"{item}" for item in answer["gone"]]
            while True:
                await one_turn(worker, who, diary, hands)


async def one_turn(worker: Any, who: Any, diary: Diary, hands: dict[str, Any]) -> None:
    for _ in range(8):
        worker.ids += 1
        await worker.send(type="lease", id=worker.ids, token=f"github/t{secrets.randbelow(TOKENS)}")
    first = worker.ids - 7
    for number in range(first, first + 8):
        frame = await worker.answer(number)
        assert frame["type"] == "granted", frame
        diary.granted[frame["lease"]] = (who.name, frame["token"], frame["version"])
        hands[frame["token"]] = frame
    given_back = list(hands.values())[: secrets.randbelow(3)]
    if given_back:
        # Once it is asked for, it may be released whether or not the answer arrives.
        for held in given_back:
            del hands[held["token"]]
        answer = await worker.ask("release", leases=[held["lease"] for held in given_back])
        diary.released.update(answer["leases"])


async def test_eight_kills_lose_nothing(
    open_house: Any, prepare: Any, house_parts: Any, wire: Any, serving: Any
) -> None:
    """After each kill the workers come back and resume all they hold; at the end, record, log and diary agree."""
    async with open_house() as house:
        config = house.config
        crew = [await prepare(house, worker=f"w{number}", ttl_s=300) for number in range(WORKERS)]
        for number in range(TOKENS):
            await house.put(f"github/t{number}")
    diary, hands = Diary(), {who.name: dict[str, Any]() for who in crew}
    began = time.monotonic()
    for _ in range(KILLS):
        async with serving(config, config.parent / "serve.log") as broker, asyncio.TaskGroup() as tasks:
            for who in crew:
                tasks.create_task(work(broker.url, who, wire, diary, hands[who.name]))
            enough = len(diary.granted) + 5
            await house_parts.until(lambda enough=enough: len(diary.granted) >= enough)
            await asyncio.sleep(secrets.randbelow(400) / 1000)
            assert broker.running
            await broker.kill()
    assert time.monotonic() - began < 60
    assert diary.lost == []
    assert len(diary.granted) > KILLS * 5
    async with open_house() as house:
        rows = {row.lease: row for row in await house.leases()}
        recorded = {entry.lease: entry for entry in await house.entries(LeaseGranted)}
        for lease, (worker, token, version) in diary.granted.items():
            assert (rows[lease].worker, rows[lease].token) == (worker, token)
            assert recorded[lease].version == version
        held = {frame["lease"] for each in hands.values() for frame in each.values()}
        assert {rows[lease].state for lease in held} == {"live"}
        assert {rows[lease].state for lease in diary.released} <= {"released"}
        report = await house.verified()
        assert (report.ok, report.problems) == (True, [])
        assert report.logs >= KILLS
    assert "Traceback" not in (config.parent / "serve.log").read_text()
