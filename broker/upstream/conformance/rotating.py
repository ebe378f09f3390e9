"""The laws of rotators. What is particular to one service (its answers, its faults) is its adapter's own tests.

Crashes are played as cancellations: whatever a step gave is lost, and the step is asked again under the same id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar

from broker.secret import Secret
from broker.upstream.conformance.terms import check_refuses, check_takes
from broker.upstream.conformance.verdict import (
    LawBroken,
    cuts,
    notes_are_fit,
    refused,
    require,
    tells_nothing,
)
from broker.upstream.conformance.walk import Walk
from broker.upstream.conformance.world import RotatorWorld
from broker.upstream.errors import Unreachable, UpstreamError

STEPS = ("create", "set", "test", "finish")


class RotatorLaws:
    """The laws. Fixtures that a subclass gives, each made anew for a test: world, and first_world."""

    name: ClassVar[str]
    """The rotator that is enrolled here, by the name of its entry point."""
    deadline_s: ClassVar[float] = 30.0
    """How long a step may take before the law counts as broken."""
    cuts_max: ClassVar[int] = 10
    """At how many of its awaits a call is cut short; fewer where each call goes over many of them slowly."""

    async def test_a_rotation_replaces_the_value(self, world: RotatorWorld) -> None:
        """After the four steps upstream takes the new value and no other; so again in the rotations that follow."""
        for _ in range(3):
            walk = self._walk(world)
            await walk.take(*STEPS)
            await walk.ended()

    async def test_a_first_rotation_needs_no_value_before_it(self, first_world: RotatorWorld) -> None:
        """A token without a value gets one, and the next rotation replaces it."""
        for _ in range(2):
            walk = self._walk(first_world)
            await walk.take(*STEPS)
            await walk.ended()

    async def test_the_value_in_use_works_until_finish(self, world: RotatorWorld) -> None:
        """No step but the last one touches the value in use, and the new one works beside it."""
        walk = self._walk(world)
        in_use = _in_use(world)
        for step in ("create", "set", "test"):
            await walk.take(step)
            await walk.stands(in_use, f"`{step}` ended the value in use")
        await walk.stands(walk.new, "after `set` upstream does not take the new value")

    async def test_each_step_may_be_asked_again(self, world: RotatorWorld) -> None:
        """Steps that are repeated do what they do once."""
        walk = self._walk(world)
        for step in STEPS:
            await walk.take(step, step)
        await walk.ended()

    async def test_creating_again_leaves_one_value(self, world: RotatorWorld) -> None:
        """A value that was made and lost is taken back by the next `create` under the same id."""
        walk = self._walk(world)
        await walk.take("create")
        lost = walk.new
        await walk.take("create", "set", "test")
        if not world.lapses and lost.reveal() != walk.new.reveal():
            await walk.gone(lost, "the value of a `create` that was repeated still works")
        await walk.take("finish")
        await walk.ended()

    async def test_a_wrong_value_fails_the_test(self, world: RotatorWorld) -> None:
        """`test` refuses what upstream does not take, for good, and changes nothing there."""
        if world.asks:
            walk = self._walk(world)
            await walk.take("create", "set")
            call = world.rotator.test(walk.rotation, world.wrong(walk.new))
            error = await refused(call, of="test of a wrong value", deadline_s=self.deadline_s)
            require(not isinstance(error, Unreachable), "`test` takes a wrong value for an outage")
            await walk.stands(_in_use(world), "`test` ended the value in use")
            await walk.take("test", "finish")
            await walk.ended()

    async def test_abandoning_restores(self, world: RotatorWorld) -> None:
        """Given up after any step, a rotation leaves what was there before it; also when given up twice."""
        for taken in (1, 2, 3):
            walk = self._walk(world)
            await walk.take(*STEPS[:taken], "abandon", "abandon")
            await walk.gone(walk.new, f"`abandon` after `{STEPS[taken - 1]}` left the new value")
            await walk.taken_back()

    async def test_what_never_was_can_be_abandoned(self, world: RotatorWorld, first_world: RotatorWorld) -> None:
        """Given up before anything was stored, a rotation leaves what was there, and so in a world without a value."""
        for each in (world, first_world):
            walk = self._walk(each)
            await walk.take("abandon-nothing")
            await walk.taken_back()

    async def test_a_lost_value_can_be_abandoned(self, world: RotatorWorld) -> None:
        """What `create` made, and nobody stored, is found and ended by `abandon` alone."""
        walk = self._walk(world)
        await walk.take("create")
        lost, walk.made = walk.new, None
        await walk.take("abandon-nothing")
        if not world.lapses:
            await walk.gone(lost, "a value that was lost still works after `abandon`")
        await walk.taken_back()

    async def test_a_rotation_follows_one_that_was_abandoned(self, world: RotatorWorld) -> None:
        """Giving up one rotation stands in the way of no other."""
        walk = self._walk(world)
        await walk.take("create", "set", "abandon")
        walk = self._walk(world)
        await walk.take(*STEPS)
        await walk.ended()

    async def test_create_cut_short_is_made_good(self, world: RotatorWorld) -> None:
        """Cancelled at any await, `create` asked again leads to one value."""
        await self._cut_everywhere(world, "create", before=(), after=("create", "set", "test", "finish"))

    async def test_set_cut_short_is_made_good(self, world: RotatorWorld) -> None:
        """Cancelled at any await, `set` asked again does what it does once."""
        await self._cut_everywhere(world, "set", before=("create",), after=("set", "test", "finish"))

    async def test_test_cut_short_changes_nothing(self, world: RotatorWorld) -> None:
        """Cancelled at any await, `test` asked again says what it says once."""
        await self._cut_everywhere(world, "test", before=("create", "set"), after=("test", "finish"))

    async def test_finish_cut_short_is_made_good(self, world: RotatorWorld) -> None:
        """Cancelled at any await, `finish` asked again ends the former value."""
        await self._cut_everywhere(world, "finish", before=("create", "set", "test"), after=("finish",))

    async def test_abandon_cut_short_is_made_good(self, world: RotatorWorld) -> None:
        """Cancelled at any await, `abandon` asked again ends the new value."""
        walk = self._walk(world)
        await walk.take("create", "set")
        for at in cuts(await walk.count("abandon"), self.cuts_max):
            walk = self._walk(world)
            await walk.take("create", "set")
            await walk.cut("abandon", at)
            await walk.stands(_in_use(world), "`abandon` ended the value in use")
            await walk.take("abandon")
            await walk.gone(walk.new, "`abandon`, cut short and asked again, left the new value")
            await walk.taken_back()

    async def test_nothing_secret_is_noted(self, world: RotatorWorld) -> None:
        """Notes keep their bounds, and hold neither a value nor a credential."""
        walk = self._walk(world)
        await walk.take("create")
        assert walk.made is not None
        secrets = [walk.new, *world.credentials.values(), *walk.made.credentials.values()]
        notes_are_fit(walk.made.notes, secrets, of="the notes of `create`")

    async def test_no_error_tells_a_secret(self, world: RotatorWorld) -> None:
        """Whatever a step raises shows neither a value nor a credential."""
        walk = self._walk(world)
        await walk.take("create", "set")
        spoiled = [world.wrong(walk.new), Secret(b"never-was-a-value-of-anything")] if world.asks else []
        secrets = [walk.new, *spoiled, *world.credentials.values(), *world.wrong_credentials.values()]
        if world.current is not None:
            secrets.append(world.current)
        for value in spoiled:
            await self._quiet(walk, secrets, new=value, credentials=world.credentials)
        if world.wrong_credentials:
            await self._quiet(walk, secrets, new=walk.new, credentials=world.wrong_credentials)

    async def test_who_cannot_sign_in_changes_nothing(self, world: RotatorWorld) -> None:
        """With credentials that upstream does not take nothing is made, and nothing ended."""
        if world.wrong_credentials and world.asks:
            walk = self._walk(world)
            rotation = replace(walk.rotation, credentials=world.wrong_credentials)
            try:
                made = await world.rotator.create(rotation, world.current)
                await world.rotator.set(rotation, made.value, world.current)
                await world.rotator.test(rotation, made.value)
            except UpstreamError:
                await walk.taken_back()
                return
            raise LawBroken("with wrong credentials a value was made that works")

    async def test_wrong_settings_are_named(self, world: RotatorWorld) -> None:
        """`check` takes the policy of this world, and names what is wrong in each that is not right."""
        check_takes(world.rotator, world)
        for bad in world.bad_terms:
            check_refuses(world.rotator, bad)

    def _walk(self, world: RotatorWorld) -> Walk:
        return Walk(world=world, deadline_s=self.deadline_s)

    async def _cut_everywhere(
        self, world: RotatorWorld, step: str, *, before: tuple[str, ...], after: tuple[str, ...]
    ) -> None:
        """One rotation to learn how often the step waits, then one for each place where it is cut."""
        walk = self._walk(world)
        await walk.take(*before)
        waited = await walk.count(step)
        await walk.take(*after[1:])
        await walk.ended()
        for at in cuts(waited, self.cuts_max):
            walk = self._walk(world)
            await walk.take(*before)
            await walk.cut(step, at)
            if step != "finish":
                await walk.stands(_in_use(world), f"`{step}`, cut short, ended the value in use")
            await walk.take(*after)
            await walk.ended()

    async def _quiet(
        self, walk: Walk, secrets: list[Secret], *, new: Secret, credentials: Mapping[str, Secret]
    ) -> None:
        """Take every step with this value and these credentials, whatever comes of it, and look at what it raises."""
        rotator, rotation = walk.world.rotator, replace(walk.rotation, credentials=credentials)
        calls: tuple[Callable[[], Awaitable[object]], ...] = (
            partial(rotator.test, rotation, new),
            partial(rotator.set, rotation, new, walk.world.current),
            partial(rotator.create, rotation, new),
            partial(rotator.abandon, rotation, new),
        )
        for call in calls:
            try:
                await call()
            except UpstreamError as error:
                tells_nothing(error, secrets)
            except Exception as error:
                raise LawBroken(f"a step raised {type(error).__name__}, no error of broker.upstream.errors") from error


def _in_use(world: RotatorWorld) -> Secret:
    assert world.current is not None, "the fixture `world` must have a value in use"
    return world.current
