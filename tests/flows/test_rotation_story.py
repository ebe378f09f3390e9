"""Rotations from policy to finish, on a clock that is moved: what workers hold, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from broker.admin.errors import CredentialRefused, InUse
from broker.audit.entries import RotationChanged
from broker.clock import FakeClock
from broker.errors import BadRequest, NotFound
from broker.rotation import rotators
from broker.rotation.errors import NoStaging, NothingToAbandon, RotationOnItsWay
from broker.rotation.terms import NewPolicy
from broker.secret import Secret
from broker.upstream.errors import BadSettings, Refused
from broker.upstream.port import Made

TOKEN = "github/ci"
ROOT = "admin:root"


class Puppet:
    """A rotator that does what a test tells it. asked: the steps, in order. faults: what a step does instead."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.given: list[dict[str, bytes | None]] = []
        self.faults: dict[str, Any] = {}
        self.made: Any = None
        self.gates: dict[str, asyncio.Event] = {}

    @asynccontextmanager
    async def open(self, name: str, site: Any) -> Any:
        yield self

    def check(self, settings: Any, credentials: Any) -> None:
        if "wrong" in settings:
            raise BadSettings("wrong: there is no such setting")

    async def create(self, rotation: Any, current: Any) -> Any:
        await self._step("create", rotation, None, current)
        return self.made or Made(value=Secret(f"made-{len(self.asked)}".encode()))

    async def set(self, rotation: Any, new: Any, current: Any) -> None:
        await self._step("set", rotation, new, current)

    async def test(self, rotation: Any, new: Any) -> None:
        await self._step("test", rotation, new, None)

    async def finish(self, rotation: Any, new: Any, former: Any) -> None:
        await self._step("finish", rotation, new, former)

    async def abandon(self, rotation: Any, new: Any) -> None:
        await self._step("abandon", rotation, new, None)

    async def _step(self, step: str, rotation: Any, new: Any, current: Any) -> None:
        self.asked.append(step)
        held = {"new": new, "current": current, **rotation.credentials}
        self.given.append({name: value and value.reveal() for name, value in held.items()})
        if step in self.gates:
            await self.gates[step].wait()
        if (fault := self.faults.get(step)) is not None:
            raise fault


@pytest.fixture
def puppet(monkeypatch: pytest.MonkeyPatch) -> Puppet:
    puppet = Puppet()
    monkeypatch.setattr(rotators, "open_rotator", puppet.open)
    return puppet


@pytest.fixture
async def house(open_house: Any, clock: Any, prepare: Any) -> Any:
    async with open_house(clock=clock) as opened:
        await prepare(opened)
        yield opened


async def rotate(house: Any, *, run: bool = True, **fields: Any) -> None:
    """Set a policy for the token, and begin."""
    given = {"token": TOKEN, "rotator": "puppet", "overlap_s": 0, **fields}
    await house.services.rotations.admin.set(NewPolicy(**given), actor=ROOT)
    if run:
        await house.services.rotations.admin.run(given["token"], version=None, actor=ROOT)
    await house.settled()


async def state(house: Any, token: str = TOKEN) -> Any:
    return await house.services.rotations.book.state(token)


async def reach(house: Any, condition: Callable[[Any], bool], *, seconds: float = 120, token: str = TOKEN) -> Any:
    """Move time on until the rotation is as it should be."""
    for _ in range(int(seconds / 2)):
        if condition(found := await state(house, token)):
            return found
        await house.elapse(2)
    raise AssertionError(f"never reached: {found}")


async def rotated(worker: Any) -> Any:
    """The next rotation that is pushed. On a clock that is moved, renewals come in between."""
    while (frame := await worker.push())["type"] == "renewed":
        pass
    assert frame["type"] == "rotated", frame
    return frame


async def stages(house: Any, token: str = TOKEN) -> dict[int, str]:
    page = await house.services.book.versions(token, after=None)
    return {record.version: record.stage for record in page.records}


async def value(house: Any, token: str = TOKEN) -> bytes:
    revealed = await house.services.revealer.reveal(token, version=None, actor=ROOT)
    return bytes(revealed.value.reveal())


async def test_the_former_value_goes_when_its_holder_has_confirmed(house: Any, puppet: Puppet, welcomed: Any) -> None:
    """A worker gets the new value pushed; before it says that it applied it, the former one is left alone."""
    async with welcomed(house) as worker:
        lease = (await worker.ask("lease", token=TOKEN))["lease"]
        await rotate(house)
        await reach(house, lambda found: found.step == "overlap")
        assert (await rotated(worker))["value"].encode() == await value(house)
        await house.elapse(30)
        assert (await stages(house), "finish" in puppet.asked) == ({1: "previous", 2: "current"}, False)
        await worker.send(type="ack", lease=lease, status="applied", version=2)
        found = await reach(house, lambda found: found.step == "idle")
    assert (found.last_outcome, found.unanswered) == ("finished", ())
    assert await stages(house) == {1: "retired", 2: "current"}
    assert puppet.asked == ["create", "set", "test", "finish"]
    assert puppet.given[-1] == {"new": b"made-1", "current": b"s3cret"}


async def test_who_never_confirms_is_named_at_the_deadline(house: Any, puppet: Puppet, welcomed: Any) -> None:
    """A silent holder delays the end of the former value to the deadline, and no further."""
    async with welcomed(house) as worker:
        lease = (await worker.ask("lease", token=TOKEN, ttl_s=3600))["lease"]
        await rotate(house, deadline_s=30)
        found = await reach(house, lambda found: found.step == "idle")
    assert [(each.lease, each.worker) for each in found.unanswered] == [(lease, "ci-1")]
    assert await stages(house) == {1: "retired", 2: "current"}


async def test_a_value_put_by_hand_wins(house: Any, puppet: Puppet) -> None:
    """Before the new value is in use, somebody's own put ends the rotation, and its value is taken back upstream."""
    puppet.faults["test"] = Refused("not yet")
    await rotate(house)
    await reach(house, lambda found: found.step == "test")
    await house.put(TOKEN, b"by hand")
    found = await reach(house, lambda found: found.step == "idle")
    assert (found.last_outcome, puppet.asked[-1], puppet.given[-1]["new"]) == ("overtaken", "abandon", b"made-1")
    assert await value(house) == b"by hand"
    assert (await stages(house))[2] == "retired"


async def test_going_back_takes_the_new_value_back(house: Any, puppet: Puppet) -> None:
    """`token rollback` during the overlap: the former value stays, the new one is abandoned upstream and retired."""
    await rotate(house, overlap_s=600)
    await reach(house, lambda found: found.step == "overlap")
    await house.services.tokens.rollback(TOKEN, actor=ROOT)
    found = await reach(house, lambda found: found.step == "idle")
    assert (found.last_outcome, puppet.asked[-1]) == ("rolled_back", "abandon")
    assert (await value(house), await stages(house)) == (b"s3cret", {1: "current", 2: "retired"})


async def test_a_value_in_use_under_another_number_is_never_taken_away(house: Any, puppet: Puppet) -> None:
    """Where somebody put the very value of the rotation by hand, overtaking it does not end it upstream."""
    puppet.faults["test"] = Refused("not yet")
    await rotate(house)
    await reach(house, lambda found: found.step == "test")
    await house.put(TOKEN, b"made-1")
    await reach(house, lambda found: found.step == "idle")
    assert "abandon" not in puppet.asked


async def test_a_failing_attempt_leaves_the_token_and_comes_again(house: Any, puppet: Puppet) -> None:
    """Nothing of the token changes, each attempt is on record, the pauses grow to an hour at most, and it heals."""
    puppet.faults["create"] = Refused("the account is locked")
    await rotate(house)
    found = await reach(house, lambda found: found.attempt > 4)
    assert found.error == "upstream_refused: the account is locked"
    assert found.stuck_since is not None
    assert (await value(house), await stages(house)) == (b"s3cret", {1: "current"})
    failures = [entry for entry in await house.entries(RotationChanged) if entry.change == "failed"]
    assert {(entry.step, entry.error) for entry in failures} == {("create", "upstream_refused")}
    conductor = house.broker.conductor
    assert max(conductor._pause_s(attempt) for attempt in (12, 100, 10_000)) <= 3600
    await house.elapse(30)
    assert conductor.stuck == 1
    del puppet.faults["create"]
    found = await reach(house, lambda found: found.step == "idle", seconds=600)
    assert (found.last_outcome, found.stuck_since, found.error) == ("finished", None, "")


@pytest.mark.parametrize(
    "made",
    [
        "no Made at all",
        Made(value=Secret(b"")),
        Made(value=Secret(b"x" * 70_000)),
        Made(value=Secret(b"fine"), content_type="no media type"),
        Made(value=Secret(b"fine"), credentials={"unknown": Secret(b"fine")}),
        Made(value=Secret(b"canary-value"), notes={"said": "it is canary-value"}),
        Made(value=Secret(b"fine"), notes={"long": "x" * 1000}),
    ],
)
async def test_garbage_is_refused(*, house: Any, puppet: Puppet, made: Any) -> None:
    """What a rotator makes outside the port's bounds is a failure of the step, and nothing of it is stored."""
    puppet.made = made
    await rotate(house)
    found = await reach(house, lambda found: found.attempt > 1)
    assert (found.step, found.error.partition(":")[0]) == ("create", "upstream_failed")
    assert "canary" not in str(found)
    assert await stages(house) == {1: "current"}


@pytest.mark.parametrize("error", [KeyError("canary-words"), Refused("I was told s3cret"), asyncio.CancelledError()])
async def test_what_a_rotator_raises_is_not_quoted(*, house: Any, puppet: Puppet, error: BaseException) -> None:
    """An error of another kind is told by its type, and a message that holds a value not at all."""
    puppet.faults["set"] = error
    await rotate(house)
    found = await reach(house, lambda found: found.attempt > 1)
    assert found.step == "set"
    assert "canary" not in found.error
    assert "s3cret" not in found.error


async def test_a_rotator_that_hangs_holds_up_nobody_else(house: Any, puppet: Puppet) -> None:
    """While one call hangs, another token is rotated; the hanging one is cut off at its deadline and tried again."""
    puppet.gates["create"] = asyncio.Event()
    await rotate(house, call_s=2)
    await house.elapse(2)
    await house.until(lambda: puppet.asked == ["create"])
    del puppet.gates["create"]
    await house.put("github/other", b"other")
    await rotate(house, token="github/other")
    await reach(house, lambda found: found.last_outcome == "finished", token="github/other")

    async def cut_off() -> bool:
        return bool((await state(house)).attempt > 1)

    await house.until(cut_off)
    assert (await state(house)).error.startswith("upstream_unreachable: ")
    await reach(house, lambda found: found.last_outcome == "finished")


async def test_what_was_made_is_not_lost_when_storage_fails(house: Any, puppet: Puppet) -> None:
    """A value that used up its credential is made once, and stored, with that credential's next, when storage can."""
    await house.put("github/refresh", b"once")
    puppet.gates["create"] = asyncio.Event()
    puppet.made = Made(value=Secret(b"access"), credentials={"refresh": Secret(b"twice")})
    await rotate(house, credentials={"refresh": "github/refresh"})
    await house.elapse(2)
    assert puppet.asked == ["create"]
    house.storage.refuse = lambda commit: any(type(row).__name__ == "VersionRecord" for row in commit.inserts)
    puppet.gates["create"].set()
    await house.elapse(10)
    assert (await state(house)).step == "create"
    house.storage.refuse = lambda commit: False
    await reach(house, lambda found: found.step == "idle")
    assert puppet.asked.count("create") == 1
    assert (await value(house), await value(house, "github/refresh")) == (b"access", b"twice")
    assert puppet.given[1]["refresh"] == b"twice"


async def test_a_paused_rotation_stands_still(house: Any, puppet: Puppet) -> None:
    """Paused between two steps nothing further is asked, whatever time passes; resumed, it goes on from there."""
    puppet.faults["set"] = Refused("not yet")
    await rotate(house, every_s=60)
    await reach(house, lambda found: found.step == "set")
    await house.services.rotations.admin.pause(TOKEN, actor=ROOT)
    await house.settled()
    before = list(puppet.asked)
    del puppet.faults["set"]
    await house.elapse(200)
    assert puppet.asked == before
    await house.services.rotations.admin.resume(TOKEN, actor=ROOT)
    await reach(house, lambda found: found.last_outcome == "finished")
    assert puppet.asked.count("create") == 1


async def test_a_policy_is_not_removed_under_a_rotation(house: Any, puppet: Puppet) -> None:
    """Removing, or another rotator, has to wait for the end; abandoning takes the value back, and then it may go."""
    puppet.faults["test"] = Refused("never")
    admin = house.services.rotations.admin
    await rotate(house)
    await reach(house, lambda found: found.step == "test")
    with pytest.raises(RotationOnItsWay):
        await admin.remove(TOKEN, actor=ROOT)
    with pytest.raises(RotationOnItsWay):
        await admin.run(TOKEN, version=None, actor=ROOT)
    with pytest.raises(RotationOnItsWay):
        await admin.set(NewPolicy(token=TOKEN, rotator="other"), actor=ROOT)
    await admin.abandon(TOKEN, force=False, actor=ROOT)
    await reach(house, lambda found: found.step == "idle")
    assert puppet.asked[-1] == "abandon"
    with pytest.raises(InUse):
        await house.services.tokens.delete(TOKEN, actor=ROOT)
    await admin.remove(TOKEN, actor=ROOT)
    await house.services.tokens.delete(TOKEN, actor=ROOT)
    assert await state(house) is None


async def test_abandoning_while_the_value_is_made_takes_that_back(house: Any, puppet: Puppet) -> None:
    """A value that arrives after the rotation was abandoned is stored for the rotator to forget, and never used."""
    puppet.gates["create"] = asyncio.Event()
    await rotate(house)
    await house.elapse(2)
    await house.until(lambda: puppet.asked == ["create"])
    await house.services.rotations.admin.abandon(TOKEN, force=False, actor=ROOT)
    puppet.gates["create"].set()
    await reach(house, lambda found: found.step == "idle")
    assert (puppet.asked, puppet.given[-1]["new"]) == (["create", "abandon"], b"made-1")
    assert await stages(house) == {1: "current", 2: "retired"}


async def test_what_can_never_go_on_is_ended_by_force(house: Any, puppet: Puppet) -> None:
    """A rotation whose service is gone for good ends without a word to it, and leaves the value in use."""
    puppet.faults = {"set": Refused("gone"), "abandon": Refused("gone")}
    admin = house.services.rotations.admin
    await rotate(house, run=False)
    with pytest.raises(NothingToAbandon):
        await admin.abandon(TOKEN, force=True, actor=ROOT)
    await admin.run(TOKEN, version=None, actor=ROOT)
    await reach(house, lambda found: found.step == "set")
    await admin.abandon(TOKEN, force=False, actor=ROOT)
    await reach(house, lambda found: found.step == "abandon" and found.attempt > 1)
    await admin.abandon(TOKEN, force=True, actor=ROOT)
    assert (await state(house)).last_outcome == "given_up"
    assert await value(house) == b"s3cret"


async def test_a_stored_version_is_brought_into_use_the_same_way(house: Any, puppet: Puppet) -> None:
    """`rotation run --version`: a pending value of one's own is set, tried, promoted, and the former one finished."""
    await rotate(house, run=False)
    await house.put(TOKEN, b"my own", stage="pending")
    await house.services.rotations.admin.run(TOKEN, version=2, actor=ROOT)
    await reach(house, lambda found: found.last_outcome == "finished")
    assert puppet.asked == ["set", "test", "finish"]
    assert await value(house) == b"my own"


async def test_a_token_without_a_value_gets_its_first(house: Any, puppet: Puppet) -> None:
    """A policy for a name that is no token yet makes the token, with the rotator's value."""
    await rotate(house, token="github/new", run=False, every_s=3600)
    await reach(house, lambda found: found.last_outcome == "finished", token="github/new")
    assert await value(house, "github/new") == b"made-1"


async def test_an_interval_counts_from_a_value_put_by_hand(house: Any, puppet: Puppet) -> None:
    """Whoever changes the value himself is not rotated at once: the interval begins again."""
    await rotate(house, run=False, every_s=300)
    await house.elapse(200)
    await house.put(TOKEN, b"by hand")
    await house.elapse(200)
    assert puppet.asked == []
    await reach(house, lambda found: found.last_outcome == "finished", seconds=200)


async def test_a_clock_that_jumps_brings_one_rotation(
    open_house: Any, clock: Any, prepare: Any, puppet: Puppet
) -> None:
    """A year ahead: one rotation, and the next an interval later; set back again: none before that one was."""
    async with open_house(clock=clock) as house:
        await prepare(house)
        await rotate(house, run=False, every_s=3600)
    async with open_house(clock=FakeClock(clock.now() + timedelta(days=365))) as house:
        found = await reach(house, lambda found: found.last_outcome == "finished")
        await house.elapse(60)
        assert puppet.asked.count("create") == 1
        assert (await state(house)).due_at == found.last_at + timedelta(hours=1)
    async with open_house(clock=FakeClock(clock.now())) as house:
        await house.services.rotations.admin.pause(TOKEN, actor=ROOT)
        await house.services.rotations.admin.resume(TOKEN, actor=ROOT)
        await house.elapse(60)
        assert puppet.asked.count("create") == 1
        assert (await state(house)).due_at > found.last_at


async def test_a_dry_run_changes_nothing_in_use(house: Any, puppet: Puppet) -> None:
    """On a staging target each step is tried and taken back; the token, its versions and its schedule stay."""
    await house.put("github/staging", b"sign in there")
    await rotate(house, run=False, staging={"host": "staging"}, staging_credentials={"admin": "github/staging"})
    before = await state(house)
    tried = await house.services.rotations.dry_runs.run(TOKEN, actor=ROOT)
    assert [(each.step, each.error) for each in tried] == [(step, "") for step in ("create", "set", "test", "abandon")]
    assert puppet.given[1] == {"new": b"made-1", "current": None, "admin": b"sign in there"}
    assert (await state(house), await stages(house)) == (before, {1: "current"})
    puppet.faults["set"] = Refused("no")
    tried = await house.services.rotations.dry_runs.run(TOKEN, actor=ROOT)
    assert [(each.step, bool(each.error)) for each in tried] == [("create", False), ("set", True), ("abandon", False)]


async def test_a_dry_run_without_a_staging_target_is_refused(house: Any, puppet: Puppet) -> None:
    """Trying on what is in use would be a rotation."""
    await rotate(house, run=False)
    with pytest.raises(NoStaging):
        await house.services.rotations.dry_runs.run(TOKEN, actor=ROOT)
    assert puppet.asked == []


async def test_a_policy_that_its_rotator_refuses_is_not_stored(house: Any, puppet: Puppet) -> None:
    """The rotator's own words reach who typed it, and nothing is on record."""
    with pytest.raises(BadSettings, match="no such setting"):
        await rotate(house, settings={"wrong": "x"})
    assert await state(house) is None


@pytest.mark.parametrize(
    ("credentials", "refused"),
    [({"admin": TOKEN}, CredentialRefused), ({"admin": "no/such"}, NotFound), ({"a": "x/y", "b": "x/y"}, BadRequest)],
)
async def test_a_credential_is_another_token(
    *, house: Any, puppet: Puppet, credentials: dict[str, str], refused: type[Exception]
) -> None:
    """The token itself, one that is not there, and one twice are refused."""
    await house.put("x/y")
    with pytest.raises(refused):
        await rotate(house, run=False, credentials=credentials)
    assert await state(house) is None


async def test_shares_are_rolled_out_and_taken_back(house: Any, puppet: Puppet, welcomed: Any) -> None:
    """With shares the new version goes through a rollout; a worker that cannot use it has the rotation abandoned."""
    async with welcomed(house) as worker:
        lease = (await worker.ask("lease", token=TOKEN))["lease"]
        await rotate(house, shares=(10_000,), wait_s=30.0, bake_s=0.0, abort_above=0)
        await reach(house, lambda found: found.step == "promote")
        await house.elapse(4)
        assert (await rotated(worker))["version"] == 2
        await worker.send(type="ack", lease=lease, status="failed", version=2, detail="no")
        await reach(house, lambda found: found.step == "abandon")
        await house.elapse(10)
        assert "abandon" not in puppet.asked
        assert (await rotated(worker))["version"] == 1
        await worker.send(type="ack", lease=lease, status="applied", version=1)
        found = await reach(house, lambda found: found.step == "idle", seconds=300)
    assert (found.last_outcome, puppet.asked[-1]) == ("rolled_back", "abandon")
    assert await value(house) == b"s3cret"


async def test_the_log_says_what_a_policy_opens_and_that_the_broker_does_the_steps(house: Any, puppet: Puppet) -> None:
    """Who set it stands at the policy and at the beginning; the steps are nobody's but the broker's."""
    await house.put("crm/key", b"hunter2hunter2")
    await rotate(house, credentials={"login": "crm/key"})
    await reach(house, lambda found: found.step == "idle")
    entries = await house.entries(RotationChanged)
    [policy_set] = [entry for entry in entries if entry.change == "policy_set"]
    assert (policy_set.actor, policy_set.rotator, policy_set.credentials) == (ROOT, "puppet", ("crm/key",))
    assert {entry.change for entry in entries if entry.actor == ROOT} == {"policy_set", "started"}
    assert {entry.change for entry in entries if entry.actor == "system"} == {"done", "finished"}


async def test_the_same_value_again_is_no_rotation(house: Any, puppet: Puppet) -> None:
    """A service that gives the value in use once more has replaced nothing: it says so, and nothing is ended there."""
    puppet.made = Made(value=Secret(b"s3cret"))
    await rotate(house)
    found = await reach(house, lambda found: found.step == "idle")
    assert (found.last_outcome, "finish" in puppet.asked) == ("unchanged", False)
    assert await value(house) == b"s3cret"


async def test_a_value_that_ends_by_itself_is_replaced_without_a_schedule(
    house: Any, puppet: Puppet, clock: FakeClock
) -> None:
    """When four fifths of its life are over; but not where somebody has put another one since."""
    puppet.made = Made(value=Secret(b"for a while"), expires_at=clock.now() + timedelta(seconds=1000))
    await rotate(house)
    first = await reach(house, lambda found: found.step == "idle")
    assert timedelta(seconds=700) < first.due_at - clock.now() <= timedelta(seconds=800)
    puppet.made = None
    await reach(house, lambda found: found.last_version > first.last_version, seconds=900)
    puppet.made = Made(value=Secret(b"for another while"), expires_at=clock.now() + timedelta(seconds=1000))
    await house.services.rotations.admin.run(TOKEN, version=None, actor=ROOT)
    last = await reach(house, lambda found: found.step == "idle" and found.expires_at is not None)
    await house.put(TOKEN, b"by hand")
    await house.elapse(900)
    found = await state(house)
    assert (found.due_at, found.last_version) == (None, last.last_version)
    assert await value(house) == b"by hand"
