"""Rotators that each get one thing wrong, around the real rotator `webhook` and the service that it calls.

Each shows that a law can fail. A saboteur may reach past the rotator, into what the service keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from broker.secret import Secret
from broker.upstream.errors import BadSettings, Failed, Refused, Unreachable, UpstreamError
from broker.upstream.port import Made, Rotation, Rotator


class Saboteur:
    """Passes every call on. kept: the values that the service takes of the token, to meddle with."""

    def __init__(self, *, real: Rotator, receiver: Any) -> None:
        self.real = real
        self.receiver = receiver
        self.memory: dict[str, Any] = {}

    def kept(self, rotation: Rotation) -> set[bytes]:
        """What the service takes."""
        values: set[bytes] = self.receiver.target(rotation.token).values
        return values

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """Pass on."""
        self.real.check(settings, credentials)

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        """Pass on."""
        return await self.real.create(rotation, current)

    async def set(self, rotation: Rotation, new: Secret, current: Secret | None) -> None:
        """Pass on."""
        await self.real.set(rotation, new, current)

    async def test(self, rotation: Rotation, new: Secret) -> None:
        """Pass on."""
        await self.real.test(rotation, new)

    async def finish(self, rotation: Rotation, new: Secret, former: Secret | None) -> None:
        """Pass on."""
        await self.real.finish(rotation, new, former)

    async def abandon(self, rotation: Rotation, new: Secret | None) -> None:
        """Pass on."""
        await self.real.abandon(rotation, new)


class KeepsTheFormer(Saboteur):
    """Finishes without ending anything."""

    async def finish(self, rotation: Rotation, new: Secret, former: Secret | None) -> None:
        await self.real.finish(rotation, new, None)


class EndsEveryValue(Saboteur):
    """Finishes by ending whatever the service takes of anybody."""

    async def finish(self, rotation: Rotation, new: Secret, former: Secret | None) -> None:
        await self.real.finish(rotation, new, former)
        for target in self.receiver.targets.values():
            target.values.intersection_update({new.reveal()})


class NeedsAValueBefore(Saboteur):
    """Cannot make the first value."""

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        if current is None:
            raise BadSettings("there is no value to rotate")
        return await self.real.create(rotation, current)


class ReplacesInPlace(Saboteur):
    """Ends the value in use as soon as the new one is set."""

    async def set(self, rotation: Rotation, new: Secret, current: Secret | None) -> None:
        await self.real.set(rotation, new, current)
        self.kept(rotation).intersection_update({new.reveal()})


class ForgetsToSet(Saboteur):
    """Has the service accept something else than the new value."""

    async def set(self, rotation: Rotation, new: Secret, current: Secret | None) -> None:
        self.kept(rotation).discard(new.reveal())


class WorksOnce(Saboteur):
    """Refuses a step that it has done already."""

    async def finish(self, rotation: Rotation, new: Secret, former: Secret | None) -> None:
        if self.memory.setdefault("finished", rotation.id) == rotation.id and self.memory.pop("again", False):
            raise Refused("it has been finished")
        self.memory["again"] = True
        await self.real.finish(rotation, new, former)


class LeavesOrphans(Saboteur):
    """Makes another value each time, and takes none back."""

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        number = self.memory["number"] = self.memory.get("number", 0) + 1
        return await self.real.create(replace(rotation, id=f"{rotation.id[:20]}-{number}"), current)


class BelievesEverything(Saboteur):
    """Tests nothing."""

    async def test(self, rotation: Rotation, new: Secret) -> None:
        return


class TakesARefusalForAnOutage(Saboteur):
    """Says of a wrong value that the service is away."""

    async def test(self, rotation: Rotation, new: Secret) -> None:
        try:
            await self.real.test(rotation, new)
        except UpstreamError:
            raise Unreachable from None


class TestsByTrying(Saboteur):
    """Has the service accept whatever is tested."""

    async def test(self, rotation: Rotation, new: Secret) -> None:
        try:
            await self.real.test(rotation, new)
        except UpstreamError:
            self.kept(rotation).clear()
            raise


class AbandonsByHalves(Saboteur):
    """Gives up without ending the new value."""

    async def abandon(self, rotation: Rotation, new: Secret | None) -> None:
        await self.real.abandon(replace(rotation, id="0" * 32), None)


class AbandonsTheWrongOne(Saboteur):
    """Ends the value in use when it gives up."""

    async def abandon(self, rotation: Rotation, new: Secret | None) -> None:
        self.kept(rotation).intersection_update({new.reveal() if new is not None else b""})


class NeedsAValueToAbandon(Saboteur):
    """Fails where nothing was made."""

    async def abandon(self, rotation: Rotation, new: Secret | None) -> None:
        if new is None:
            raise Failed("there is nothing to abandon")
        await self.real.abandon(rotation, new)


class StaysAbandoned(Saboteur):
    """Begins no other rotation once it has given one up."""

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        if self.memory.get("abandoned"):
            raise Refused("it was given up")
        return await self.real.create(rotation, current)

    async def abandon(self, rotation: Rotation, new: Secret | None) -> None:
        self.memory["abandoned"] = True
        await self.real.abandon(rotation, new)


class RemembersInMemory(Saboteur):
    """Marks a step as done before it is, and does nothing when asked again: a crash between leaves it undone."""

    async def once(self, step: str, rotation: Rotation) -> bool:
        """Whether a step was begun before."""
        known = f"{step} {rotation.id}" in self.memory
        self.memory[f"{step} {rotation.id}"] = True
        await asyncio.sleep(0)
        return known

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        made = await self.real.create(rotation, current)
        self.kept(rotation).discard(made.value.reveal())
        return made

    async def set(self, rotation: Rotation, new: Secret, current: Secret | None) -> None:
        if not await self.once("set", rotation):
            await self.real.set(rotation, new, current)

    async def finish(self, rotation: Rotation, new: Secret, former: Secret | None) -> None:
        if not await self.once("finish", rotation):
            await self.real.finish(rotation, new, former)

    async def abandon(self, rotation: Rotation, new: Secret | None) -> None:
        if not await self.once("abandon", rotation):
            await self.real.abandon(rotation, new)


class SwallowsCancellation(Saboteur):
    """Goes on when it is cancelled."""

    async def wait(self) -> None:
        """Suspend once."""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        await self.wait()
        return await self.real.create(rotation, current)

    async def test(self, rotation: Rotation, new: Secret) -> None:
        await self.wait()
        await self.real.test(rotation, new)


class KeepsItsLock(Saboteur):
    """Does not give its lock back when it is cancelled."""

    async def test(self, rotation: Rotation, new: Secret) -> None:
        lock = self.memory.setdefault("lock", asyncio.Lock())
        await lock.acquire()
        await self.real.test(rotation, new)
        lock.release()


class NotesTheValue(Saboteur):
    """Remembers the new value where everybody can read it."""

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        made = await self.real.create(rotation, current)
        return replace(made, notes={**made.notes, "value": made.value.reveal().decode()})


class NotesTooMuch(Saboteur):
    """Remembers more than there is room for."""

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        made = await self.real.create(rotation, current)
        return replace(made, notes={**made.notes, "history": "x" * 513})


class QuotesTheValue(Saboteur):
    """Says in its error which value was refused."""

    async def test(self, rotation: Rotation, new: Secret) -> None:
        try:
            await self.real.test(rotation, new)
        except UpstreamError:
            raise Refused(f"no such value: {new.reveal().decode()}") from None


class QuotesInTheCause(Saboteur):
    """Says it in the error behind the error."""

    async def test(self, rotation: Rotation, new: Secret) -> None:
        raise Refused from ValueError(new.reveal().hex())


class LetsErrorsThrough(Saboteur):
    """Raises what its tools raise."""

    async def test(self, rotation: Rotation, new: Secret) -> None:
        try:
            await self.real.test(rotation, new)
        except UpstreamError:
            raise KeyError("value") from None


class NeedsNoKey(Saboteur):
    """Makes and sets values for whoever asks."""

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        return await self.real.create(self.signed(rotation), current)

    async def set(self, rotation: Rotation, new: Secret, current: Secret | None) -> None:
        await self.real.set(self.signed(rotation), new, current)

    async def test(self, rotation: Rotation, new: Secret) -> None:
        await self.real.test(self.signed(rotation), new)

    def signed(self, rotation: Rotation) -> Rotation:
        """The rotation, with the right key whatever the policy says."""
        return replace(rotation, credentials={"signing_key": Secret(self.receiver.secret)})


class TakesAnySettings(Saboteur):
    """Looks at nothing before a policy is stored."""

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        return


class NamesNothing(Saboteur):
    """Refuses without saying what."""

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        try:
            self.real.check(settings, credentials)
        except BadSettings:
            raise BadSettings("it is wrong") from None


class ChokesOnNonsense(Saboteur):
    """Raises what its tools raise, for settings."""

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        for text in settings.values():
            text.encode()
        self.real.check(settings, credentials)


class RefusesItsOwn(Saboteur):
    """Refuses a policy that works."""

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        raise BadSettings("the setting url is wrong")


LAW_BREAKERS: dict[str, tuple[type[Saboteur], ...]] = {
    "test_a_rotation_replaces_the_value": (KeepsTheFormer, EndsEveryValue),
    "test_a_first_rotation_needs_no_value_before_it": (NeedsAValueBefore,),
    "test_the_value_in_use_works_until_finish": (ReplacesInPlace, ForgetsToSet),
    "test_each_step_may_be_asked_again": (WorksOnce,),
    "test_creating_again_leaves_one_value": (LeavesOrphans,),
    "test_a_wrong_value_fails_the_test": (
        BelievesEverything,
        TakesARefusalForAnOutage,
        TestsByTrying,
        LetsErrorsThrough,
    ),
    "test_abandoning_restores": (AbandonsByHalves, AbandonsTheWrongOne),
    "test_what_never_was_can_be_abandoned": (NeedsAValueToAbandon, AbandonsTheWrongOne),
    "test_a_lost_value_can_be_abandoned": (AbandonsByHalves,),
    "test_a_rotation_follows_one_that_was_abandoned": (StaysAbandoned,),
    "test_create_cut_short_is_made_good": (LeavesOrphans, SwallowsCancellation),
    "test_set_cut_short_is_made_good": (RemembersInMemory,),
    "test_test_cut_short_changes_nothing": (SwallowsCancellation, KeepsItsLock),
    "test_finish_cut_short_is_made_good": (RemembersInMemory,),
    "test_abandon_cut_short_is_made_good": (RemembersInMemory,),
    "test_nothing_secret_is_noted": (NotesTheValue, NotesTooMuch),
    "test_no_error_tells_a_secret": (QuotesTheValue, QuotesInTheCause, LetsErrorsThrough),
    "test_who_cannot_sign_in_changes_nothing": (NeedsNoKey,),
    "test_wrong_settings_are_named": (TakesAnySettings, NamesNothing, ChokesOnNonsense, RefusesItsOwn),
}
"""For each law, rotators that it must catch."""
