"""Rollouts over real sockets: who has the version is known by name, and a bad one goes back before others have it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from broker.admin.errors import InUse, RolloutRefused, RolloutRunning
from broker.audit.entries import LeaseRotated, RolloutChanged
from broker.errors import Conflict, Gone, NotFound
from broker.rotation.rollouts import NewRollout
from storage.records import RolloutTallyRecord, TokenRecord, VersionRecord

ROOT = "admin:root"
NAME = "github/ci"


@pytest.fixture
async def crew(house: Any, wire: Any, players: Any) -> AsyncIterator[Any]:
    """Thirty workers that hold the token, whose version 2 waits."""
    hired = await players.hired(house, wire, 30)
    await house.put(NAME, b"two", stage="pending")
    async with players.playing(hired, wire, lambda _: house.url) as playing:
        yield playing


async def begin(house: Any, version: int = 2, **terms: Any) -> Any:
    """Start a rollout that watches nothing on."""
    new = NewRollout(version=version, **{"bake_s": 0.0, "wait_s": 20.0, **terms})
    return await house.services.rollouts.start(NAME, new, actor=ROOT)


async def ended(house: Any, within_s: float = 30.0) -> Any:
    """The rollout once it is over."""

    async def over() -> bool:
        record, _ = await house.services.rollouts.status(NAME)
        return record.ended_at is not None

    await house.until(over, within_s)
    return (await house.services.rollouts.status(NAME))[0]


async def at_step(house: Any, step: int, confirmed: int) -> None:
    """Return when the rollout is at this step and so many have confirmed."""

    async def there() -> bool:
        record, said = await house.services.rollouts.status(NAME)
        return (record.step, said.confirmed) == (step, confirmed) and not said.untold

    await house.until(there)


async def stages(house: Any) -> dict[int, str]:
    page = await house.storage.select(VersionRecord, prefix=(NAME,))
    return {record.version: record.stage for record in page.records}


async def token(house: Any) -> Any:
    return await house.storage.get(TokenRecord, (NAME,))


async def test_three_hundred_workers_and_exactly_who_confirmed(house: Any, wire: Any, players: Any) -> None:
    """Three steps to 300 workers; those who did not answer are named, and nobody else."""
    hired = await players.hired(house, wire, 300)
    await house.put(NAME, b"two", stage="pending")
    async with players.playing(hired, wire, lambda _: house.url) as crew:
        canary = players.canaries(crew, 2, 500)
        dumb = [player for player in crew.values() if player not in canary][:3]
        for player in dumb:
            player.answers[2] = "silent"
        await begin(house, shares=(500, 5000, 10_000), wait_s=5.0, abort_above=300, retire="deadline", deadline_s=1.0)
        record = await ended(house, 60)
        assert (record.state, record.holders, record.confirmed) == ("done", 300, 297)
        assert {name.worker for name in record.unanswered} == {player.name for player in dumb}
        assert {name.why for name in record.unanswered} == {"connected"}
        rows = {row.worker: row.acked_version for row in await house.leases()}
        assert {worker for worker, acked in rows.items() if acked != 2} == {player.name for player in dumb}
        assert all(player.got == [2] for player in crew.values())
    assert await stages(house) == {1: "retired", 2: "current"}
    told = [(entry.change, entry.share) for entry in await house.entries(RolloutChanged)]
    assert told == [("started", 500), ("widened", 5000), ("widened", 10_000), ("promoted", 10_000), ("done", 10_000)]


@pytest.mark.parametrize(("answer", "why"), [("failed", "failed: failed"), ("rejected", "rejected upstream")])
async def test_a_canary_that_fails_goes_back_and_nobody_else_is_touched(
    house: Any, crew: Any, players: Any, answer: str, why: str
) -> None:
    """Its workers get the value before again; all others never got a frame, and the version is retired."""
    canary = players.canaries(crew, 2, 3000)
    for player in canary:
        player.answers[2] = answer
    await begin(house, shares=(3000, 10_000), bake_s=20.0)
    record = await ended(house)
    assert record.state == "rolled_back"
    assert f"{len(canary)} holders at 30%" in record.reason
    assert {(name.worker, name.why) for name in record.failed} <= {(player.name, why) for player in canary}
    assert record.failed
    await house.until(lambda: all(player.got == [2, 1] for player in canary))
    assert {player.name for player in crew.values() if player.got} == {player.name for player in canary}
    assert await stages(house) == {1: "current", 2: "retired"}
    after = await token(house)
    assert (after.current, after.rollout, after.rollout_share) == (1, 0, 0)
    assert len(await house.entries(LeaseRotated)) == 2 * len(canary)


async def test_silence_past_the_wait_takes_it_back(house: Any, crew: Any, players: Any) -> None:
    """One who does not answer is too many of a few, and is named."""
    canary = players.canaries(crew, 2, 3000)
    canary[0].answers[2] = "silent"
    await begin(house, shares=(3000, 10_000), wait_s=1.0)
    record = await ended(house)
    assert (record.state, record.confirmed) == ("rolled_back", len(canary) - 1)
    assert "1 did not answer" in record.reason
    assert [(name.worker, name.why) for name in record.unanswered] == [(canary[0].name, "did not answer")]


async def test_a_worker_that_breaks_off_before_it_answers_is_lost(house: Any, crew: Any, players: Any) -> None:
    """It does not come back, so the step has failed for it, long before the wait is over."""
    canary = players.canaries(crew, 2, 3000)
    canary[0].answers[2] = "leave"
    await begin(house, shares=(3000, 10_000), wait_s=600.0)
    record = await ended(house, 60)
    assert record.state == "rolled_back"
    assert "1 lost their connection" in record.reason
    assert [(name.worker, name.why) for name in record.unanswered] == [(canary[0].name, "lost its connection")]


async def test_a_worker_that_comes_back_and_has_it_is_not_lost(house: Any, crew: Any, players: Any, wire: Any) -> None:
    """It resumes with the version in hand, which is an answer."""
    canary = players.canaries(crew, 2, 3000)
    left = canary[0]
    left.answers[2] = "leave"
    await begin(house, shares=(3000, 10_000), wait_s=600.0)
    await house.until(lambda: left.got == [2])
    async with AsyncExitStack() as stack:
        worker = await stack.enter_async_context(wire.dial(house.url))
        who = next(each for each in house.hired if each.name == left.name)
        assert (await worker.handshake(who))["type"] == "welcome"
        answer = await worker.ask("resume", leases=[{"lease": left.lease, "version": 2}])
        assert [each["lease"] for each in answer["live"]] == [left.lease]
        record = await ended(house)
    assert (record.state, record.holders, record.confirmed) == ("done", 30, 30)


async def test_who_failed_stays_counted_although_it_is_gone(house: Any, crew: Any, players: Any) -> None:
    """A worker that says so and gives its lease back has failed all the same."""
    canary = players.canaries(crew, 2, 3000)
    canary[0].answers[2] = "failed"
    canary[1].answers[2] = "silent"
    await begin(house, shares=(3000, 10_000), wait_s=600.0, abort_above=9000)

    async def counted() -> bool:
        return bool((await house.services.rollouts.status(NAME))[1].failed)

    await house.until(counted)
    await canary[0].worker.send(type="release", id=99, leases=[canary[0].lease])
    await canary[1].worker.send(type="ack", lease=canary[1].lease, version=2, status="applied")
    record = await ended(house)
    assert (record.state, record.holders) == ("done", 30)
    assert [name.worker for name in record.failed] == [canary[0].name]


async def test_verifiers_accept_both_versions_from_the_first_moment(house: Any, crew: Any, players: Any) -> None:
    """A lease of the previous stage has the other one of the two, whichever its worker's own is."""
    both = await house.services.grants.add(players.previous("group:crew"), actor=ROOT)
    assert both.previous
    await house.settled()
    canary = players.canaries(crew, 2, 3000)
    for player in canary:
        player.answers[2] = "silent"
    await begin(house, shares=(3000, 10_000), wait_s=600.0)
    await house.until(lambda: all(player.got for player in canary))
    for player in crew.values():
        granted = await players.asked(house, player, "lease", token=NAME, stage="previous")
        assert granted["version"] == (1 if player in canary else 2)
    await house.services.rollouts.abort(NAME, actor=ROOT)


async def test_a_fresh_lease_has_its_step_and_counts_as_confirmed(house: Any, crew: Any, players: Any) -> None:
    """Who asks during a rollout gets what his place says, and waits for nothing."""
    canary = players.canaries(crew, 2, 3000)
    canary[0].answers[2] = "silent"
    await begin(house, shares=(3000, 10_000), wait_s=600.0)
    await at_step(house, 0, len(canary) - 1)
    granted = await players.asked(house, canary[0], "lease", token=NAME)
    assert granted["version"] == 2
    assert (await ended(house)).confirmed == 30


async def test_an_abort_takes_it_back_and_says_who_did(house: Any, crew: Any, players: Any) -> None:
    """As if it had failed; again it changes nothing, and then another rollout may begin."""
    canary = players.canaries(crew, 2, 3000)
    canary[0].answers[2] = "silent"
    await begin(house, shares=(3000, 10_000), wait_s=600.0)
    await house.until(lambda: all(player.got == [2] for player in canary))
    first = await house.services.rollouts.abort(NAME, actor=ROOT)
    assert (first.state, first.reason) == ("rolled_back", "aborted by admin:root")
    again = await house.services.rollouts.abort(NAME, actor="admin:other")
    assert (again.rev, again.reason) == (first.rev, first.reason)
    await house.until(lambda: all(player.got == [2, 1] for player in canary))
    canary[0].answers.clear()
    await begin(house)
    assert (await ended(house)).state == "done"


async def test_offline_holders_are_waited_for_and_named(house: Any, crew: Any, players: Any) -> None:
    """The version before is not retired while a copy of it is out; who has it, and until when, is told."""
    away = next(iter(crew.values()))
    await away.worker.socket.close()
    await begin(house)

    async def named() -> bool:
        record, _ = await house.services.rollouts.status(NAME)
        return [name.worker for name in record.unanswered] == [away.name]

    await house.until(named)
    record, _ = await house.services.rollouts.status(NAME)
    assert (record.state, record.unanswered[0].why) == ("confirming", "offline")
    assert record.unanswered[0].expires_at == (await house.row(away.lease)).expires_at
    assert (await stages(house))[1] == "previous"
    with pytest.raises(RolloutRunning, match="waits for holders"):
        await begin(house, 1)
    finished = await house.services.rollouts.abort(NAME, actor=ROOT)
    assert (finished.state, finished.unanswered) == ("done", record.unanswered)
    assert (await stages(house))[1] == "previous"


async def test_who_is_away_is_named_beside_one_that_is_connected_and_silent(
    house: Any, crew: Any, players: Any
) -> None:
    """One that never answers hides nobody who still has the version before."""
    away, dumb = list(crew.values())[:2]
    dumb.answers[2] = "silent"
    await away.worker.socket.close()
    await begin(house, wait_s=1.0, abort_above=9000)

    async def named() -> bool:
        record, _ = await house.services.rollouts.status(NAME)
        return {(name.worker, name.why, name.expires_at is not None) for name in record.unanswered} == {
            (away.name, "offline", True),
            (dumb.name, "connected", False),
        }

    await house.until(named)
    assert (await house.services.rollouts.status(NAME))[0].state == "confirming"


async def test_while_a_version_is_rolled_out_nothing_moves_under_it(house: Any, crew: Any, players: Any) -> None:
    """What would change either of the two versions is refused with the way out; disabling and pending ones are not."""
    for player in players.canaries(crew, 2, 3000):
        player.answers[2] = "silent"
    await begin(house, shares=(3000, 10_000), wait_s=600.0)
    tokens = house.services.tokens
    for refused in (
        lambda: begin(house),
        lambda: house.put(NAME, b"three"),
        lambda: tokens.promote(NAME, 2, actor=ROOT),
        lambda: tokens.rollback(NAME, actor=ROOT),
        lambda: tokens.retire(NAME, 2, actor=ROOT),
        lambda: tokens.destroy(NAME, 2, actor=ROOT),
        lambda: tokens.delete(NAME, actor=ROOT),
    ):
        before = await token(house)
        with pytest.raises(RolloutRunning, match="token rollout abort github/ci"):
            await refused()
        assert await token(house) == before
    await house.put(NAME, b"three", stage="pending")
    await tokens.disable(NAME, actor=ROOT)
    with pytest.raises(RolloutRunning):
        await tokens.destroy(NAME, 1, actor=ROOT)
    await tokens.enable(NAME, actor=ROOT)
    assert (await house.services.rollouts.status(NAME))[0].state == "running"
    await house.services.rollouts.abort(NAME, actor=ROOT)
    await tokens.delete(NAME, actor=ROOT)


async def test_a_disabled_token_is_rolled_out_to_nobody_and_goes_no_further(
    house: Any, crew: Any, players: Any
) -> None:
    """That nobody holds it says nothing of the version, so the steps wait."""
    for player in players.canaries(crew, 2, 3000):
        player.answers[2] = "silent"
    await begin(house, shares=(3000, 10_000), wait_s=600.0)
    await house.services.tokens.disable(NAME, actor=ROOT)

    async def nobody() -> bool:
        _, said = await house.services.rollouts.status(NAME)
        return not said.holders and not said.untold

    await house.until(nobody)
    looked = house.broker.rollouts.looked
    await house.until(lambda: house.broker.rollouts.looked > looked + 1)
    record, said = await house.services.rollouts.status(NAME)
    assert (record.state, record.step, said.holders) == ("running", 0, 0)


async def test_a_step_is_watched_anew_once_its_token_is_enabled_again(house: Any, crew: Any, players: Any) -> None:
    """What passed while nobody could hold the version was no watching."""
    await begin(house, shares=(3000, 10_000), bake_s=600.0)

    async def watched() -> bool:
        return (await house.services.rollouts.status(NAME))[0].answered_at is not None

    async def unwatched() -> bool:
        return not await watched()

    await house.until(watched)
    first = (await house.services.rollouts.status(NAME))[0].answered_at
    await house.services.tokens.disable(NAME, actor=ROOT)
    await house.until(unwatched)
    await house.services.tokens.enable(NAME, actor=ROOT)
    await house.until(watched)
    again, _ = await house.services.rollouts.status(NAME)
    assert (again.state, again.step) == ("running", 0)
    assert again.answered_at > first


async def test_what_cannot_be_rolled_out_is_refused(house: Any) -> None:
    """Nothing is written: no such version, the current one, a destroyed one, steps and times out of bounds."""
    await house.put(NAME, b"two", stage="pending")
    await house.services.tokens.destroy(NAME, 2, actor=ROOT)
    await house.put(NAME, b"three", stage="pending")
    before = await token(house)
    for error, version, terms in (
        (NotFound, 9, {}),
        (InUse, 1, {}),
        (Gone, 2, {}),
        (RolloutRefused, 3, {"shares": ()}),
        (RolloutRefused, 3, {"shares": (500, 500, 10_000)}),
        (RolloutRefused, 3, {"shares": (500,)}),
        (RolloutRefused, 3, {"shares": (0, 10_000)}),
        (RolloutRefused, 3, {"wait_s": 0.0}),
        (RolloutRefused, 3, {"bake_s": -1.0}),
        (RolloutRefused, 3, {"abort_above": 10_000}),
        (RolloutRefused, 3, {"deadline_s": float("nan")}),
    ):
        with pytest.raises(error):
            await begin(house, version, **terms)
    assert await token(house) == before
    await house.services.tokens.disable(NAME, actor=ROOT)
    with pytest.raises(Conflict, match="disabled"):
        await begin(house, 3)
    with pytest.raises(NotFound, match="ever rolled out"):
        await house.services.rollouts.status(NAME)


async def test_a_rollout_without_holders_ends(house: Any) -> None:
    """Nobody to wait for; the version before is retired, and no count is left behind."""
    await house.put(NAME, b"two", stage="pending")
    await begin(house, shares=(500, 10_000))
    record = await ended(house)
    assert (record.state, record.holders) == ("done", 0)
    assert await stages(house) == {1: "retired", 2: "current"}

    async def swept() -> bool:
        return not (await house.storage.select(RolloutTallyRecord)).records

    await house.until(swept)


async def test_rolling_back_slowly_keeps_the_previous_version(house: Any, crew: Any, players: Any) -> None:
    """The previous version may be rolled out too; taken back, it is previous again."""
    await begin(house, retire="never")
    assert (await ended(house)).state == "done"
    for player in players.canaries(crew, 1, 3000):
        player.answers[1] = "failed"
    await begin(house, 1, shares=(3000, 10_000))
    assert (await ended(house)).state == "rolled_back"
    assert await stages(house) == {1: "previous", 2: "current"}
