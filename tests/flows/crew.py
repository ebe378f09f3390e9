"""Workers and an operator who never rest, and a diary of all that they were told, to be held against the record.

They speak raw frames, try every replica in turn, and come back with what they hold. Whether the record agrees with the
diary is `reckoning`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp

from broker.clock import SystemClock

PATIENCE_S = 5.0
"""For a handshake, and for each answer."""
PAUSE_S, PAUSE_MAX_S = 0.2, 3.2
"""Between two attempts at a connection: it doubles, and up to half of it is left to chance, as clients do."""
TURN_S = 0.05
LONG, SHORT = "long", "short"
TTL_S = {LONG: 600, SHORT: 4}
"""Long leases outlive every failure; short ones are renewed all the time, and may run out."""
TOKENS = tuple(f"{kind}/t{number}" for kind in TTL_S for number in range(6))
LONG_TOKENS = tuple(token for token in TOKENS if token.startswith(LONG))


@dataclass(kw_only=True)
class Diary:
    """What workers and operator were told. Whatever was not acknowledged is not in it.

    given: (worker, lease, token, version) whose value arrived. lost: long leases that were gone when their worker came
    back. leaving: workers whom the operator wants out; out: since when that is acknowledged. surprises: what must not
    happen at all.
    """

    given: set[tuple[str, str, str, int]] = field(default_factory=set)
    values: dict[tuple[str, int], str] = field(default_factory=dict)
    renewed: list[tuple[str, str, datetime]] = field(default_factory=list)
    resumed: set[str] = field(default_factory=set)
    released: set[str] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    leaving: set[str] = field(default_factory=set)
    out: dict[str, datetime] = field(default_factory=dict)
    puts: dict[tuple[str, int], str] = field(default_factory=dict)
    grants: set[str] = field(default_factory=set)
    served_at: dict[str, float] = field(default_factory=dict)
    surprises: list[str] = field(default_factory=list)

    def value(self, token: str, version: int, value: str) -> None:
        """One version has one value, wherever it is read."""
        if self.values.setdefault((token, version), value) != value:
            self.surprises.append(f"{token} version {version} has two values")


class Member:
    """A worker. hands: what it holds, by token, as (lease, version). instance: where it is, or was last."""

    def __init__(self, who: Any, wire: Any, diary: Diary, tokens: Sequence[str], pause_s: float) -> None:
        """tokens: what it leases and gives back. pause_s: between turns, in which it only listens."""
        self.who = who
        self.name: str = who.name
        self.hands: dict[str, tuple[str, int]] = {}
        self.instance = ""
        self._wire = wire
        self._diary = diary
        self._tokens = tokens
        self._pause_s = pause_s
        self._out = False
        self._attempts = 0

    async def work(self, cluster: Any, first: int) -> None:
        """Lease, renew and release until cancelled, or let go by the operator."""
        for turn in itertools.count(first):
            urls = cluster.urls
            try:
                await self._connect(urls[turn % len(urls)])
            except self._wire.Closed as closed:
                self._out = closed.code == 4403
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            if self._out:
                break
            pause_s = min(PAUSE_S * 2**self._attempts, PAUSE_MAX_S)
            self._attempts += 1
            await asyncio.sleep(pause_s * (500 + secrets.randbelow(500)) / 1000)
        if self.name not in self._diary.leaving:
            self._diary.surprises.append(f"{self.name} was let go")

    async def _connect(self, url: str) -> None:
        async with asyncio.timeout(PATIENCE_S) as limit, self._wire.dial(url) as wire:
            answer = await wire.handshake(self.who)
            if answer["type"] != "welcome":
                self._out = answer["code"] == "unauthenticated"
                return
            limit.reschedule(None)
            self._attempts = 0
            self.instance = answer["instance"]
            await self._resume(wire)
            while True:
                await self._turn(wire)
                # Ends with the connection.
                with contextlib.suppress(TimeoutError):
                    await self._pushed(wire, await wire.push(within_s=self._pause_s))

    async def _resume(self, wire: Any) -> None:
        while self.hands:
            stated = [{"lease": lease, "version": version} for lease, version in self.hands.values()]
            answer = await self._ask(wire, "resume", leases=stated)
            if answer["type"] == "error":
                await self._refused(answer)
                continue
            gone = {item["lease"]: item["code"] for item in answer["gone"]}
            for token, (lease, _) in list(self.hands.items()):
                if lease in gone:
                    del self.hands[token]
                    if token.startswith(LONG) and self.name not in self._diary.leaving:
                        self._diary.lost.append(f"{self.name} {token} {lease} {gone[lease]}")
            self._diary.resumed.update(item["lease"] for item in answer["live"])
            if answer["live"]:
                self._diary.served_at[self.name] = time.monotonic()
            for item in answer["rotated"]:
                await self._rotated(wire, item)
            return

    async def _turn(self, wire: Any) -> None:
        for token in {secrets.choice(self._tokens) for _ in range(4)}:
            answer = await self._ask(wire, "lease", token=token)
            if answer["type"] == "error":
                await self._refused(answer)
                break
            self._given(answer)
        while wire.pushes:
            await self._pushed(wire, wire.pushes.pop(0))
        if len(self.hands) > len(self._tokens) - 3:
            token = secrets.choice(list(self.hands))
            # Once it is asked for, it may be released whether or not the answer arrives.
            lease, _ = self.hands.pop(token)
            answer = await self._ask(wire, "release", leases=[lease])
            self._diary.released.update(answer.get("leases", ()))

    async def _ask(self, wire: Any, kind: str, **fields: Any) -> Any:
        """The answer. TimeoutError: none came, so another replica is tried."""
        async with asyncio.timeout(PATIENCE_S):
            return await wire.ask(kind, **fields)

    async def _pushed(self, wire: Any, frame: Any) -> None:
        if frame["type"] == "rotated":
            await self._rotated(wire, frame)
        elif frame["type"] == "renewed":
            now = SystemClock().now()
            self._diary.renewed += [(self.name, item["lease"], now) for item in frame["leases"]]
        elif frame["type"] == "revoked":
            over = set(frame["leases"])
            self.hands = {token: held for token, held in self.hands.items() if held[0] not in over}
            for lease in over:
                await wire.send(type="ack", lease=lease, status="wiped")
            if self.name not in self._diary.leaving:
                self._diary.surprises.append(f"{self.name} was revoked: {frame['reason']}")

    async def _rotated(self, wire: Any, frame: Any) -> None:
        # A release may have overtaken it.
        if frame["token"] in self.hands:
            self._given(frame)
        await wire.send(type="ack", lease=frame["lease"], version=frame["version"], status="applied")

    def _given(self, frame: Any) -> None:
        token, lease, version = frame["token"], frame["lease"], frame["version"]
        self.hands[token] = (lease, version)
        self._diary.given.add((self.name, lease, token, version))
        self._diary.value(token, version, frame["value"])
        self._diary.served_at[self.name] = time.monotonic()

    async def _refused(self, answer: Any) -> None:
        expected = {"unavailable", "rate_limited"} | ({"denied"} if self.name in self._diary.leaving else set())
        if answer["code"] not in expected:
            self._diary.surprises.append(f"{self.name}: {answer}")
        await asyncio.sleep(PAUSE_S)


class Crew:
    """Everybody, and the diary."""

    def __init__(self, cluster: Any, members: list[Member], diary: Diary) -> None:
        self.cluster = cluster
        self.members = {member.name: member for member in members}
        self.diary = diary

    def at(self, instance: str) -> list[Member]:
        """Who is connected to that replica, or was last."""
        return [member for member in self.members.values() if member.instance == instance]

    async def let_go(self, member: Member, *, of: str = "") -> None:
        """Disable a worker, and return when that is acknowledged. of: the replica that is told."""
        self.diary.leaving.add(member.name)
        await self.cluster.must("POST", f"/v1/workers/{member.name}/disable", of=of)
        self.diary.out[member.name] = SystemClock().now()

    async def served(self, since: float, within_s: float = 60.0) -> None:
        """Return when everybody who is not let go was given something after that monotonic instant."""
        async with asyncio.timeout(within_s):
            while True:
                staying = self.members.keys() - self.diary.leaving
                if min(self.diary.served_at.get(name, 0.0) for name in staying) > since:
                    return
                await asyncio.sleep(0.02)

    async def operate(self, pause_s: float) -> None:
        """Put values and add grants until cancelled; what fails is not tried again."""
        for number in itertools.count():
            token = secrets.choice(TOKENS)
            value = f"{token} {number}"
            try:
                if number % 4:
                    status, answer = await self.cluster.ask(
                        "POST", f"/v1/tokens/{token}/-/versions", {"value": value, "previous_valid_s": 60}
                    )
                    if status < 300:
                        self.diary.puts[token, answer["version"]] = value
                else:
                    status, answer = await self.cluster.ask(
                        "POST", "/v1/grants", grant("worker:nobody", f"n{number}/*")
                    )
                    if status < 300:
                        self.diary.grants.add(answer["grant"])
                if status >= 300 and status not in {409, 429, 503}:
                    self.diary.surprises.append(f"the operator: {status} {answer}")
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(pause_s)


def grant(subject: str, pattern: str, ttl_s: int = 60) -> dict[str, Any]:
    """A grant as the API takes it."""
    return {"subject": subject, "pattern": pattern, "ttl_s": ttl_s, "max_ttl_s": 3600}


async def hire(cluster: Any, wire: Any, count: int) -> list[Any]:
    """Register so many workers of one group, with its grants and tokens; their identities."""
    crew = [wire.Identity(f"w{number}") for number in range(count)]
    for kind, ttl_s in TTL_S.items():
        await cluster.must("POST", "/v1/grants", grant("group:crew", f"{kind}/*", ttl_s))
    for token in TOKENS:
        await cluster.must("POST", f"/v1/tokens/{token}/-/versions", {"value": f"{token} first"})
    for who in crew:
        known = {"worker": who.name, "public_key": wire.b64(who.public_key), "groups": ["crew"]}
        await cluster.must("POST", "/v1/workers", known)
    return crew


@asynccontextmanager
async def at_work(
    cluster: Any,
    wire: Any,
    count: int = 8,
    *,
    tokens: Sequence[str] = TOKENS,
    pause_s: float = TURN_S,
    operator_pause_s: float = TURN_S,
) -> AsyncIterator[Crew]:
    """So many workers and an operator under way, every one of whom was served already; at rest when the body ends."""
    diary = Diary()
    members = [Member(who, wire, diary, tokens, pause_s) for who in await hire(cluster, wire, count)]
    crew = Crew(cluster, members, diary)
    async with asyncio.TaskGroup() as tasks:
        busy = [tasks.create_task(member.work(cluster, first)) for first, member in enumerate(members)]
        busy.append(tasks.create_task(crew.operate(operator_pause_s)))
        await crew.served(0.0)
        try:
            yield crew
        finally:
            for task in busy:
                task.cancel()
