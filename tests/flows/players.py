"""Workers that hold one token and answer each push in a way that they were told beforehand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from broker.admin.asked import NewGrant
from broker.leases.shares import bucket

TOKEN = "github/ci"


class Player:
    """One worker's connection. answers: what it says to a push of each version; none: `applied`.

    got: the versions that were pushed to it, in order. hand: the version that it has.
    """

    def __init__(self, worker: Any, name: str, lease: dict[str, Any]) -> None:
        self.worker = worker
        self.name = name
        self.lease: str = lease["lease"]
        self.hand: int = lease["version"]
        self.answers: dict[int, str] = {}
        self.got: list[int] = []

    async def play(self, closed: type[Exception]) -> None:
        """Answer what comes until the connection ends."""
        with contextlib.suppress(closed, ConnectionError):
            while True:
                frame = await self.worker.push(within_s=3600)
                if frame["type"] == "rotated":
                    await self.pushed(frame["version"])

    async def pushed(self, version: int) -> None:
        """Do as it was told about this version."""
        self.got.append(version)
        answer = self.answers.get(version, "applied")
        if answer == "leave":
            await self.worker.socket.close()
            return
        if answer == "silent":
            return
        said = "failed" if answer == "failed" else "applied"
        if said == "applied":
            self.hand = version
        await self.worker.send(type="ack", lease=self.lease, version=version, status=said)
        if answer == "rejected":
            await self.worker.send(type="report", lease=self.lease, event="rejected", version=version)


async def hired(house: Any, wire: Any, count: int) -> list[Any]:
    """So many workers in a group that may lease the token for a minute at a time."""
    crew = [wire.Identity(f"w-{number}") for number in range(count)]
    for start in range(0, count, 50):
        await asyncio.gather(*(house.register(who, groups=("crew",)) for who in crew[start : start + 50]))
    await house.grant("group:crew", "github/*", 60, 3600)
    house.hired = crew
    return crew


def previous(subject: str) -> NewGrant:
    """A grant of both stages."""
    return NewGrant(subject=subject, pattern="github/*", ttl_s=60, max_ttl_s=3600, previous=True)


async def asked(house: Any, player: Player, kind: str, **fields: Any) -> dict[str, Any]:
    """Ask beside the play, which reads all frames; the answer."""
    worker = player.worker
    worker.ids += 1
    number = worker.ids
    await worker.send(type=kind, id=number, **fields)
    await house.until(lambda: number in worker.answers)
    answer: dict[str, Any] = worker.answers.pop(number)
    return answer


@asynccontextmanager
async def playing(crew: list[Any], wire: Any, url: Callable[[int], str]) -> AsyncIterator[dict[str, Player]]:
    """They all connect, lease the token, and answer until the context ends; by name."""
    async with AsyncExitStack() as stack:
        players = {}
        for number, who in enumerate(crew):
            worker = await stack.enter_async_context(wire.dial(url(number)))
            assert (await worker.handshake(who))["type"] == "welcome"
            players[who.name] = Player(worker, who.name, await worker.lease(TOKEN))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        plays = [tasks.create_task(player.play(wire.Closed)) for player in players.values()]
        stack.callback(lambda: [play.cancel() for play in plays])
        yield players


@asynccontextmanager
async def back(players: dict[str, Player], crew: list[Any], wire: Any, url: str) -> AsyncIterator[None]:
    """Those of the crew connect again, resume what they hold, and answer as before until the context ends."""
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        for who in crew:
            player = players[who.name]
            player.worker = await stack.enter_async_context(wire.dial(url))
            assert (await player.worker.handshake(who))["type"] == "welcome"
            stated = [{"lease": player.lease, "version": player.hand}]
            answer = await player.worker.ask("resume", leases=stated)
            assert answer["gone"] == [], answer
            for frame in answer["rotated"]:
                await player.pushed(frame["version"])
            play = tasks.create_task(player.play(wire.Closed))
            stack.callback(play.cancel)
        yield


def canaries(players: dict[str, Player], version: int, share: int) -> list[Player]:
    """Who has part in a step of the rollout of this version."""
    return [player for player in players.values() if bucket(TOKEN, player.name, version) < share]
