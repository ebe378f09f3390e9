"""What is done at each step of a rotation, once; when to do it again is `conductor`'s, writing it down `progress`'s.

create ─▶ set ─▶ test ─▶ promote ─▶ overlap ─▶ finish ─▶ idle        abandon ─▶ idle
The rotator is asked at create, set, test, finish and abandon; each of these may be asked again after a crash. Until
promote the value in use is the former one, and nothing of it has been touched. Somebody else's change of the token ends
the rotation: before promote its value is abandoned, afterwards nothing upstream is taken away, because nobody here can
know which value is in use.

One file, because each step is a few lines that are only understood beside the others.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import structlog

from broker.admin.asked import NewVersion
from broker.admin.plan import Plan, joined
from broker.admin.put import Put, TokenPutter
from broker.admin.signing_in import SigningIn
from broker.admin.token_book import TokenBook
from broker.admin.tokens import TokenAdmin
from broker.clock import Clock
from broker.errors import Conflict, NotFound, Unavailable
from broker.ids import random_id
from broker.rotation.book import RotationBook
from broker.rotation.errors import NotTheDriver
from broker.rotation.hand import Hand
from broker.rotation.progress import Progress, at_step
from broker.rotation.rollout_admin import RolloutAdmin
from broker.rotation.rollout_plans import SYSTEM
from broker.rotation.rollouts import NewRollout
from broker.rotation.rotators import Rotators, check_made
from broker.rotation.schedule import next_start
from broker.rotation.users import Users
from broker.secret import Secret
from broker.upstream.port import Made, Rotation
from broker.vault.vault import Vault
from storage.records import RotationPolicyRecord, RotationRecord, TokenRecord
from storage.records.rotation import RotationStep

log = structlog.get_logger("tokenbroker.rotation")

LOOK_S: Final = 5.0
"""How often a rollout, or who still uses a version, is looked at."""
LOOK_S_MAX: Final = 60.0
STORE_AGAIN_S: Final = 2.0
"""How often it is tried to store what was made, while storage or the KMS cannot."""
SOON: Final = 0.8
"""A value that upstream ends by itself is replaced when this part of its life is over."""

Part = Callable[[], Awaitable[Plan[Any]]]
"""What else belongs to a commit, decided together with it."""
_BEFORE_USE: Final = frozenset({"create", "set", "test", "promote"})


class Steps:
    """Carries out one step. Raises what the rotator, the vault and storage raise; what was written down then stands."""

    def __init__(
        self,
        *,
        tokens: TokenAdmin,
        putter: TokenPutter,
        book: TokenBook,
        vault: Vault,
        rotations: RotationBook,
        rotators: Rotators,
        progress: Progress,
        rollouts: RolloutAdmin,
        signing_in: SigningIn,
        users: Users,
        clock: Clock,
    ) -> None:
        self._tokens = tokens
        self._putter = putter
        self._book = book
        self._vault = vault
        self._rotations = rotations
        self._rotators = rotators
        self._progress = progress
        self._rollouts = rollouts
        self._signing_in = signing_in
        self._users = users
        self._clock = clock
        self._steps: dict[RotationStep, Callable[..., Awaitable[None]]] = {
            "create": self._create,
            "set": self._set,
            "test": self._test,
            "promote": self._promote,
            "overlap": self._overlap,
            "finish": self._finish,
            "abandon": self._abandon,
        }

    async def carry_out(self, state: RotationRecord, policy: RotationPolicyRecord, hand: Hand) -> None:
        """One attempt at the step that the rotation stands at, and if it went well, the next one is written down."""
        token = await self._book.find(state.token)
        current = 0 if token is None else token.current
        if state.step == "idle":
            await self._begin(state, policy, token)
        elif state.step in _BEFORE_USE and current not in {state.former, state.version or state.former}:
            await self._go_on(state, "abandon", change="overtaken", ending="overtaken")
        elif state.step in _BEFORE_USE and current != state.former:
            await self._go_on(state, "overlap", wait_s=policy.overlap_s)
        elif state.step in {"overlap", "finish"} and current != state.version:
            if current == state.former and state.step == "overlap":
                await self._go_on(state, "abandon", change="rolled_back", ending="rolled_back")
            else:
                await self._end(state, policy, "overtaken")
        else:
            await self._steps[state.step](state, policy, hand)

    async def _begin(self, state: RotationRecord, policy: RotationPolicyRecord, token: TokenRecord | None) -> None:
        """Begin, unless somebody put a value by hand since: then the interval counts from that."""
        now = self._clock.now()
        if token is not None and token.kind != "stored":
            raise Conflict(f"token {token.name} has no versions of its own to rotate; remove its policy")
        if token is not None and token.current not in {0, state.last_version}:
            put_at = (await self._book.version(token.name, token.current)).created_at
            later = start_after(policy, now=now, since=put_at)
            if later is None or later > now:
                await self._look_again(state, later)
                return
        fresh = msgspec.structs.replace(
            state,
            id=random_id(),
            version=0,
            former=0 if token is None else token.current,
            notes={},
            started_at=now,
            started_by="",
            ending="",
            unanswered=(),
        )

        async def after(found: RotationRecord) -> Plan[None]:
            begun = at_step(msgspec.structs.replace(fresh, rev=found.rev, due_at=found.due_at), "create", now, now)
            return Plan(result=None, entries=(self._progress.entry(begun, "started"),), updates=(begun,))

        await self._progress.write(state, after)

    async def _create(self, state: RotationRecord, policy: RotationPolicyRecord, hand: Hand) -> None:
        current = await self._value(state.token, state.former, hand)
        rotation = await self._rotation(state, policy, hand)
        made = check_made(
            await self._rotators.ask(policy.rotator, policy.call_s, lambda each: each.create(rotation, current)),
            credentials=policy.credentials,
        )
        hand.take(made.value, *made.credentials.values())
        await self._store(state, policy, made)

    async def _store(self, state: RotationRecord, policy: RotationPolicyRecord, made: Made) -> None:
        """Store the value, what its making used up, and that it is stored, in one commit: all of it or nothing.

        Until then what was made is in this process alone, so it is tried again for as long as storage or the KMS
        cannot. NotTheDriver: another replica goes on, and makes another one.
        """
        news = [
            NewVersion(token=policy.credentials[name], value=each.reveal()) for name, each in made.credentials.items()
        ]
        value = NewVersion(
            token=state.token, value=made.value.reveal(), stage="pending", content_type=made.content_type
        )

        async def after(found: RotationRecord) -> Plan[None]:
            stored: Plan[Put] = await self._putter.planned(value, actor=SYSTEM)
            used_up = [await self._putter.planned(new, actor=SYSTEM) for new in news]
            facts = {"version": stored.result.version.version, "notes": dict(made.notes), "expires_at": made.expires_at}
            now = self._clock.now()
            # Abandoned meanwhile: it is stored all the same, so that the rotator is told what to take back.
            step: RotationStep = "set" if found.step == "create" else "abandon"
            entry = self._progress.entry(found, "done")
            return joined(
                None,
                stored,
                *used_up,
                Plan(result=None, entries=(entry,), updates=(at_step(found, step, now, now, **facts),)),
            )

        if not await self._insisting(lambda: self._progress.write(state, after, "abandon"), state):
            for new in news:
                await self._putter.put(new, actor=SYSTEM)

    async def _set(self, state: RotationRecord, policy: RotationPolicyRecord, hand: Hand) -> None:
        new = await self._new_value(state, hand)
        current = await self._value(state.token, state.former, hand)
        rotation = await self._rotation(state, policy, hand)
        await self._rotators.ask(policy.rotator, policy.call_s, lambda each: each.set(rotation, new, current))
        await self._go_on(state, "test")

    async def _test(self, state: RotationRecord, policy: RotationPolicyRecord, hand: Hand) -> None:
        new = await self._new_value(state, hand)
        rotation = await self._rotation(state, policy, hand)
        await self._rotators.ask(policy.rotator, policy.call_s, lambda each: each.test(rotation, new))
        await self._go_on(state, "promote")

    async def _promote(self, state: RotationRecord, policy: RotationPolicyRecord, hand: Hand) -> None:
        if not policy.shares or not state.former:
            await self._go_on(state, "overlap", lambda: self._promoting(state), wait_s=policy.overlap_s)
            return
        soon = self._clock.now() + timedelta(seconds=LOOK_S)
        rollout = await self._book.rollout(state.token)
        if rollout is None or rollout.id != state.id:
            await self._look_again(state, soon, lambda: self._rolling_out(state, policy))
        elif rollout.state == "rolled_back":
            await self._go_on(state, "abandon", change="rolled_back", ending="rolled_back")
        elif rollout.state == "running":
            await self._look_again(state, soon)
        else:
            await self._go_on(state, "overlap", wait_s=policy.overlap_s)

    async def _rolling_out(self, state: RotationRecord, policy: RotationPolicyRecord) -> Plan[Any]:
        """The rollout goes by the rotation's id, so it is begun once. Retiring the former version is ours."""
        new = NewRollout(
            version=state.version,
            shares=policy.shares,
            wait_s=policy.wait_s,
            bake_s=policy.bake_s,
            abort_above=policy.abort_above,
            retire="never",
            deadline_s=max(policy.deadline_s, 1),
        )
        return await self._rollouts.planned(state.token, new, rollout=state.id, actor=SYSTEM)

    async def _promoting(self, state: RotationRecord) -> Plan[Any]:
        plan = await self._tokens.promotion(state.token, state.version, actor=SYSTEM)
        if plan.result.token.previous != state.former:
            raise Conflict(f"token {state.token} was changed by somebody else just now; it is looked at again")
        return plan

    async def _overlap(self, state: RotationRecord, policy: RotationPolicyRecord, hand: Hand) -> None:
        """Let the former version go when its time is over and nobody uses it, or when the deadline has come."""
        over_at = state.step_at + timedelta(seconds=policy.overlap_s)
        if (later := await self._not_yet(state, policy, state.former, over_at=over_at)) is not None:
            await self._look_again(state, later)
            return
        is_over = self._clock.now() >= self._deadline(state, policy)
        users = await self._users.named(state.token, state.former) if is_over and state.former else ()
        await self._go_on(state, "finish", *self._retiring(state, state.former), unanswered=users)

    async def _finish(self, state: RotationRecord, policy: RotationPolicyRecord, hand: Hand) -> None:
        new = await self._new_value(state, hand)
        former = await self._value(state.token, state.former, hand)
        if _same(new, former):
            await self._end(state, policy, "unchanged")
            return
        rotation = await self._rotation(state, policy, hand)
        await self._rotators.ask(policy.rotator, policy.call_s, lambda each: each.finish(rotation, new, former))
        await self._end(state, policy, "finished")

    async def _abandon(self, state: RotationRecord, policy: RotationPolicyRecord, hand: Hand) -> None:
        """Have the new value forgotten when nobody uses it any more: after going back, workers still switch."""
        token = await self._book.find(state.token)
        if token is not None and state.version and token.current == state.version:
            await self._end(state, policy, "overtaken")
            return
        if (later := await self._not_yet(state, policy, state.version, over_at=state.step_at)) is not None:
            await self._look_again(state, later)
            return
        new = await self._value(state.token, state.version, hand)
        in_use = None if token is None else await self._value(state.token, token.current, hand)
        if new is None or not _same(new, in_use):
            rotation = await self._rotation(state, policy, hand)
            await self._rotators.ask(policy.rotator, policy.call_s, lambda each: each.abandon(rotation, new))
        await self._end(state, policy, state.ending, *self._retiring(state, state.version))

    async def _not_yet(
        self, state: RotationRecord, policy: RotationPolicyRecord, version: int, *, over_at: datetime
    ) -> datetime | None:
        """When to look again whether the version may go; None: now is the time."""
        now = self._clock.now()
        deadline = self._deadline(state, policy)
        # The longer it has gone on, the less often it is looked at; at least once a minute, to see others' changes.
        pause = min(max((now - state.step_at).total_seconds() / 10, LOOK_S), LOOK_S_MAX)
        later = now + timedelta(seconds=pause)
        if now < over_at:
            return min(over_at, later)
        if now >= deadline or not version or await self._users.any(state.token, version) is False:
            return None
        return min(deadline, later)

    def _deadline(self, state: RotationRecord, policy: RotationPolicyRecord) -> datetime:
        return state.step_at + timedelta(seconds=policy.deadline_s)

    def _retiring(self, state: RotationRecord, version: int) -> tuple[Part, ...]:
        """That the version is leased to nobody any more, as a part of a commit."""

        async def retiring() -> Plan[Any]:
            found = await self._book.version(state.token, version)
            if found.stage in {"destroyed", "retired"}:
                return Plan(result=None, entries=())
            return await self._tokens.retirement(state.token, version, actor=SYSTEM)

        return (retiring,) if version else ()

    async def _go_on(
        self,
        state: RotationRecord,
        step: RotationStep,
        *parts: Part,
        change: str = "done",
        wait_s: float = 0.0,
        **fields: object,
    ) -> None:
        """Write down the next step, with what else belongs to the same commit. wait_s: it is not due before that."""

        async def after(found: RotationRecord) -> Plan[None]:
            now = self._clock.now()
            due_at = now + timedelta(seconds=min(wait_s, LOOK_S_MAX))
            further = at_step(found, step, now, due_at, **fields)
            own = Plan(result=None, entries=(self._progress.entry(found, change),), updates=(further,))
            return joined(None, *[await part() for part in parts], own)

        await self._progress.write(state, after)

    async def _end(
        self,
        state: RotationRecord,
        policy: RotationPolicyRecord,
        outcome: str,
        *parts: Part,
    ) -> None:
        async def after(found: RotationRecord) -> Plan[None]:
            now = self._clock.now()
            expires_at = found.expires_at if outcome in {"finished", "unchanged"} else None
            due_at = start_after(policy, now=now, since=now, expires_at=expires_at)
            ended = at_step(
                found,
                "idle",
                now,
                due_at,
                last_at=now,
                last_version=found.version,
                last_outcome=outcome,
                expires_at=expires_at,
            )
            entry = self._progress.entry(found, outcome)
            return joined(
                None, *[await part() for part in parts], Plan(result=None, entries=(entry,), updates=(ended,))
            )

        if await self._progress.write(state, after):
            log.info("rotation_ended", token=state.token, outcome=outcome, version=state.version)

    async def _look_again(self, state: RotationRecord, at: datetime | None, *parts: Part) -> None:
        """Stay at this step until then; None: until somebody says otherwise."""

        async def after(found: RotationRecord) -> Plan[None]:
            waiting = msgspec.structs.replace(
                found,
                rev=found.rev + 1,
                due_at=None if found.due_at is None else at,
                attempt=1,
                error="",
                stuck_since=None,
            )
            return joined(None, *[await part() for part in parts], Plan(result=None, entries=(), updates=(waiting,)))

        await self._progress.write(state, after)

    async def _insisting(self, write: Callable[[], Awaitable[bool]], state: RotationRecord) -> bool:
        while True:
            try:
                return await write()
            except NotTheDriver:
                raise
            except Unavailable as error:
                log.warning("rotation_value_not_stored_yet", token=state.token, error=error.message)
            await self._clock.sleep(STORE_AGAIN_S)

    async def _rotation(self, state: RotationRecord, policy: RotationPolicyRecord, hand: Hand) -> Rotation:
        """What the rotator acts with, its credentials opened for this attempt."""
        credentials = await hand.hold(self._signing_in.opened(policy.credentials))
        return Rotation(
            token=state.token, settings=policy.settings, credentials=credentials, id=state.id, notes=state.notes
        )

    async def _new_value(self, state: RotationRecord, hand: Hand) -> Secret:
        value = await self._value(state.token, state.version, hand)
        if value is None:
            raise NotFound(
                f"token {state.token}: version {state.version}, which the rotation made, is destroyed; abandon it"
            )
        return value

    async def _value(self, token: str, version: int, hand: Hand) -> Secret | None:
        """The value of a version; None: there is none, or not any more."""
        if not version:
            return None
        record = await self._book.version(token, version)
        if record.stage == "destroyed":
            return None
        value = await self._vault.open(record)
        hand.take(value)
        return value


def start_after(
    policy: RotationPolicyRecord, *, now: datetime, since: datetime | None, expires_at: datetime | None = None
) -> datetime | None:
    """When the policy's next rotation begins; sooner, or at all, if the value in use ends by itself before."""
    at = next_start(every_s=policy.every_s, cron=policy.cron, windows=policy.windows, now=now, since=since)
    if expires_at is None:
        return at
    soon = max(now, now + (expires_at - now) * SOON)
    return soon if at is None else min(at, soon)


def _same(one: Secret, other: Secret | None) -> bool:
    """Whether two values are equal: then neither may be taken away, under whatever number it is stored."""
    return other is not None and hmac.compare_digest(one.reveal(), other.reveal())
