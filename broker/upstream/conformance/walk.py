"""One rotation, taken step by step as the broker takes it: what `create` told is kept for the steps after it."""

from __future__ import annotations

import secrets as random_bytes
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from broker.secret import Secret
from broker.upstream.conformance.verdict import answered, awaits, cut_short, require
from broker.upstream.conformance.world import RotatorWorld
from broker.upstream.port import Made, Rotation

TOKEN = "laws/value"  # noqa: S105 - the name of a token


def new_id() -> str:
    """The id of a rotation or a lease: 32 hexadecimal digits, as the broker's are."""
    return random_bytes.token_hex(16)


@dataclass(kw_only=True)
class Walk:
    """A rotation in a world. made: what `create` gave last."""

    world: RotatorWorld
    deadline_s: float
    id: str = field(default_factory=new_id)
    made: Made | None = None

    @property
    def new(self) -> Secret:
        """The value that was made."""
        assert self.made is not None, "the law created nothing yet"
        return self.made.value

    @property
    def rotation(self) -> Rotation:
        """What each step is called with. Notes are those of the last `create`."""
        notes: Mapping[str, str] = {} if self.made is None else self.made.notes
        return Rotation(
            token=TOKEN, settings=self.world.settings, credentials=self.world.credentials, id=self.id, notes=notes
        )

    def call(self, step: str) -> Coroutine[Any, Any, Any]:
        """The call of a step, not yet awaited. abandon-nothing: `abandon` before anything was stored."""
        rotator, rotation, current = self.world.rotator, self.rotation, self.world.current
        if step == "create":
            return rotator.create(replace(rotation, notes={}), current)
        if step == "set":
            return rotator.set(rotation, self.new, current)
        if step == "test":
            return rotator.test(rotation, self.new)
        if step == "finish":
            return rotator.finish(rotation, self.new, current)
        return rotator.abandon(rotation, None if step == "abandon-nothing" else self.new)

    async def take(self, *steps: str) -> None:
        """Take steps, each of which must be done; what `create` gives is stored."""
        for step in steps:
            self._keep(await answered(self.call(step), of=step, deadline_s=self.deadline_s))

    async def count(self, step: str) -> int:
        """Take a step, and tell how often it waited."""
        given, waited = await answered(awaits(self.call(step)), of=step, deadline_s=self.deadline_s)
        self._keep(given)
        return waited

    async def cut(self, step: str, at: int) -> None:
        """Begin a step, and cancel it at one of its awaits. Whatever it gave is lost, as in a crash."""
        await cut_short(self.call(step), at=at, of=step, deadline_s=self.deadline_s)

    async def ended(self) -> None:
        """Hold what is true after `finish`, and go on from there: the new value is the one in use."""
        former, self.world.current = self.world.current, self.new
        await self.stands(self.new, "after `finish` upstream does not take the new value")
        if former is not None:
            await self.gone(former, "after `finish` upstream still takes the former value")
        await self.alone("after `finish` there is another value than the new one")

    async def taken_back(self) -> None:
        """Hold what is true after `abandon`."""
        if self.world.current is not None:
            await self.stands(self.world.current, "`abandon` ended the value in use")
        await self.alone("after `abandon` there is another value than the one in use")

    async def stands(self, value: Secret, otherwise: str) -> None:
        """LawBroken: upstream does not take the value."""
        if self.world.asks:
            require(await self.world.works(value), otherwise)

    async def gone(self, value: Secret, otherwise: str) -> None:
        """LawBroken: upstream takes the value."""
        if self.world.asks:
            require(not await self.world.works(value), otherwise)

    async def alone(self, otherwise: str) -> None:
        """LawBroken: upstream takes more than the value in use, or the bystander's not any more."""
        if self.world.asks:
            used = 0 if self.world.current is None else 1
            live = await self.world.live()
            require(self.world.lapses or live == used, f"{otherwise}: upstream takes {live}")
            if self.world.bystander is not None:
                require(await self.world.works(self.world.bystander), "a value of somebody else was ended")

    def _keep(self, given: object) -> None:
        if isinstance(given, Made):
            self.made = given
            self.world.credentials = {**self.world.credentials, **given.credentials}
