"""What operators do: set, pause, resume and remove rotation policies; run, and abandon. Carrying it out is `steps`'.

Every change of a policy is authority: signed, audited, and in one commit with the row that says when it is due.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

from broker.admin.errors import TooMany
from broker.admin.once import Once, nothing_beside
from broker.admin.plan import Plan, carry_out, check_revision
from broker.admin.signing_in import SigningIn
from broker.admin.token_book import TokenBook
from broker.audit.entries import RotationChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import Conflict, Gone
from broker.ids import random_id
from broker.rotation.book import RotationBook
from broker.rotation.errors import NothingToAbandon, PolicyOutOfBounds, RotationOnItsWay
from broker.rotation.progress import at_step
from broker.rotation.rotators import Rotators
from broker.rotation.steps import start_after
from broker.rotation.terms import NewPolicy, check_policy
from storage.port import Delete
from storage.records import RotationPolicyRecord, RotationRecord, TokenRecord

POLICIES_MAX: Final = 10_000
_NOT_IN_USE: Final = frozenset({"create", "set", "test", "promote"})


class RotationAdmin:
    """Policies and rotations, as operators change them. Each change is one commit with its audit entry."""

    def __init__(
        self,
        *,
        authority: Authority,
        book: TokenBook,
        rotations: RotationBook,
        rotators: Rotators,
        signing_in: SigningIn,
        clock: Clock,
    ) -> None:
        self._authority = authority
        self._book = book
        self._rotations = rotations
        self._rotators = rotators
        self._signing_in = signing_in
        self._clock = clock

    async def set(self, new: NewPolicy, *, actor: str, if_match: int | None = None) -> RotationPolicyRecord:
        """Rotate the token like this from now on; a policy that it has is replaced, and stays paused if it was.

        A token that has no value yet gets one at once. BadRequest and below, BadSettings: it makes no sense, and why.
        NotFound, CredentialRefused: a credential. Conflict: the token has no versions of its own. RotationOnItsWay:
        another rotator must not take over in the middle. TooMany. PreconditionFailed.
        """
        check_policy(new, now=self._clock.now())
        await self._rotators.check(new.rotator, new.settings, new.credentials)
        if new.staging or new.staging_credentials:
            await self._rotators.check(
                new.rotator, {**new.settings, **new.staging}, {**new.credentials, **new.staging_credentials}
            )
        for names in (new.credentials, new.staging_credentials):
            await self._signing_in.check(names, of=new.token)

        async def decide() -> Plan[RotationPolicyRecord]:
            token = await self._book.find(new.token)
            if token is not None:
                self._check_versions(token)
            before = self._authority.rotation_policies.get((new.token,))
            state = await self._rotations.state(new.token)
            if before is None and len(self._authority.rotation_policies) >= POLICIES_MAX:
                raise TooMany(f"rotation policies: there are {POLICIES_MAX}, the most; remove some first")
            if before is not None:
                check_revision(f"the rotation of {new.token}", before, if_match)
                if before.rotator != new.rotator and state is not None and state.step != "idle":
                    raise self._on_its_way(state, "change its rotator")
            policy = self._record(new, before, actor)
            fresh = state or self._blank(new.token)
            due_at = await self._due(policy, fresh, token)
            opened = {*policy.credentials.values(), *policy.staging_credentials.values()}
            entry = self._entry(policy.token, "policy_set", actor)
            entries = (msgspec.structs.replace(entry, rotator=policy.rotator, credentials=tuple(sorted(opened))),)
            if state is None:
                fresh = msgspec.structs.replace(fresh, due_at=due_at)
                return Plan(result=policy, entries=entries, inserts=(policy, fresh))
            # In the middle of a rotation the change counts from its next attempt on, which is now.
            kept = msgspec.structs.replace(state, rev=state.rev + 1, due_at=due_at)
            if before is None:
                return Plan(result=policy, entries=entries, inserts=(policy,), updates=(kept,))
            return Plan(result=policy, entries=entries, updates=(policy, kept))

        return await carry_out(self._authority, decide)

    async def pause(self, token: str, *, actor: str, if_match: int | None = None) -> RotationPolicyRecord:
        """Begin no rotation, and no further step of one, until it is resumed. What a rotator does now, it ends."""
        return await self._switch(token, True, actor, if_match)

    async def resume(self, token: str, *, actor: str, if_match: int | None = None) -> RotationPolicyRecord:
        """Go on: with the step that it stands at, now; or else as the policy says."""
        return await self._switch(token, False, actor, if_match)

    async def remove(self, token: str, *, actor: str, if_match: int | None = None) -> None:
        """Rotate it no more. RotationOnItsWay: that has to end, or be abandoned, first. NotFound."""

        async def decide() -> Plan[None]:
            policy = self._rotations.policy(token)
            check_revision(f"the rotation of {token}", policy, if_match)
            state = await self._rotations.state(token)
            if state is not None and state.step != "idle":
                raise self._on_its_way(state, "remove the policy")
            rows = () if state is None else (Delete(RotationRecord, state.key, state.rev),)
            return Plan(
                result=None,
                entries=(self._entry(token, "policy_removed", actor),),
                deletes=(Delete(RotationPolicyRecord, policy.key, policy.rev), *rows),
            )

        await carry_out(self._authority, decide)

    async def run(self, token: str, *, version: int | None, actor: str, once: Once = nothing_beside) -> RotationRecord:
        """Rotate now, whatever the schedule and windows say.

        version: a stored one, not in use, that is to become current the same way: it is set, tested, promoted, and what
        was before is finished. RotationOnItsWay. Conflict: it is paused, or the version is current. Gone: destroyed.
        """

        async def decide() -> Plan[RotationRecord]:
            policy = self._rotations.policy(token)
            if policy.paused:
                raise Conflict(f"the rotation of {token} is paused; resume it first")
            found = await self._rotations.state(token) or self._blank(token)
            if found.step != "idle":
                raise self._on_its_way(found, "begin another one")
            head = await self._book.find(token)
            current = 0 if head is None else head.current
            if version is not None:
                await self._check_given(token, version, current)
            now = self._clock.now()
            begun = at_step(
                msgspec.structs.replace(found, due_at=now),
                "create" if version is None else "set",
                now,
                now,
                id=random_id(),
                version=version or 0,
                former=current,
                notes={},
                started_at=now,
                started_by=actor,
                ending="",
                unanswered=(),
                expires_at=None,
            )
            aside = await once(begun.id)
            entry = self._entry(token, "started", actor, rotation=begun.id, version=begun.version)
            return Plan(result=begun, entries=(entry,), updates=(begun,), aside=aside)

        return await carry_out(self._authority, decide)

    async def abandon(self, token: str, *, force: bool, actor: str) -> RotationRecord:
        """Give a rotation up before its value is in use, and have the value forgotten upstream.

        force: end it where it stands, without another word to upstream: for one that can never go on.
        NothingToAbandon: there is none, or its value is in use; then `token rollback` takes it back.
        """

        async def decide() -> Plan[RotationRecord]:
            self._rotations.policy(token)
            found = await self._rotations.state(token)
            if found is None or found.step == "idle":
                raise NothingToAbandon(f"token {token}: no rotation of it is on its way")
            if force:
                return await self._given_up(found, actor)
            if found.step == "abandon":
                return Plan(result=found, entries=())
            if found.step not in _NOT_IN_USE:
                raise NothingToAbandon(
                    f"token {token}: version {found.version} is in use since the rotation promoted it; "
                    "`token rollback` takes it back, and then it is abandoned"
                )
            head = await self._book.find(token)
            if head is not None and found.version and head.rollout == found.version:
                raise NothingToAbandon(
                    f"token {token}: version {found.version} is being rolled out; `token rollout abort` takes it back, "
                    "and then it is abandoned"
                )
            now = self._clock.now()
            given_up = at_step(msgspec.structs.replace(found, due_at=now), "abandon", now, now, ending="abandoned")
            entry = self._entry(token, "done", actor, rotation=found.id, version=found.version, step=found.step)
            return Plan(result=given_up, entries=(entry,), updates=(given_up,))

        return await carry_out(self._authority, decide)

    async def _given_up(self, found: RotationRecord, actor: str) -> Plan[RotationRecord]:
        now = self._clock.now()
        policy = self._rotations.policy(found.token)
        due_at = None if policy.paused else start_after(policy, now=now, since=now)
        ended = at_step(
            msgspec.structs.replace(found, due_at=now),
            "idle",
            now,
            due_at,
            last_at=now,
            last_version=found.version,
            last_outcome="given_up",
            expires_at=None,
        )
        entry = self._entry(found.token, "abandoned", actor, rotation=found.id, version=found.version, step=found.step)
        return Plan(result=ended, entries=(entry,), updates=(ended,))

    async def _check_given(self, token: str, version: int, current: int) -> None:
        record = await self._book.version(token, version)
        if record.stage == "destroyed":
            raise Gone(f"version {version} of {token} is destroyed; put the value again, with --stage pending")
        if version == current:
            raise Conflict(f"version {version} of {token} is current already; put a new value with --stage pending")

    async def _switch(self, token: str, paused: bool, actor: str, if_match: int | None) -> RotationPolicyRecord:
        async def decide() -> Plan[RotationPolicyRecord]:
            policy = self._rotations.policy(token)
            check_revision(f"the rotation of {token}", policy, if_match)
            state = await self._rotations.state(token)
            if policy.paused is paused or state is None:
                return Plan(result=policy, entries=())
            now = self._clock.now()
            after = msgspec.structs.replace(policy, rev=policy.rev + 1, paused=paused, updated_at=now)
            due_at = await self._due(after, state, await self._book.find(token))
            switched = msgspec.structs.replace(state, rev=state.rev + 1, due_at=due_at)
            entry = self._entry(token, "paused" if paused else "resumed", actor)
            return Plan(result=after, entries=(entry,), updates=(after, switched))

        return await carry_out(self._authority, decide)

    async def _due(
        self, policy: RotationPolicyRecord, state: RotationRecord, token: TokenRecord | None
    ) -> datetime | None:
        """When the rotation is to be looked at under this policy."""
        now = self._clock.now()
        if policy.paused:
            return None
        if state.step != "idle":
            return now
        since = state.last_at
        if since is None and token is not None and token.current:
            since = (await self._book.version(token.name, token.current)).created_at
        if since is None and token is None:
            return now
        # Just behind the last one, also where the clock was set back since: an instant is never gone through twice.
        at = start_after(policy, now=now, since=since, expires_at=state.expires_at)
        return at if at is None or state.last_at is None else max(at, state.last_at + timedelta(seconds=1))

    def _check_versions(self, token: TokenRecord) -> None:
        """The token has versions, and the broker can open them without a worker."""
        if token.kind != "stored":
            raise Conflict(f"token {token.name} has no versions of its own to rotate")
        ring = self._authority.keyrings.get((token.keyring,))
        if ring is not None and ring.authorize == "kms":
            raise PolicyOutOfBounds(
                f"token {token.name} is of keyring {ring.name}, whose KMS decides for each worker, and the broker "
                "is none"
            )

    def _record(self, new: NewPolicy, before: RotationPolicyRecord | None, actor: str) -> RotationPolicyRecord:
        now = self._clock.now()
        return RotationPolicyRecord(
            rev=1 if before is None else before.rev + 1,
            token=new.token,
            rotator=new.rotator,
            settings=dict(new.settings),
            credentials=dict(new.credentials),
            staging=dict(new.staging),
            staging_credentials=dict(new.staging_credentials),
            every_s=new.every_s,
            cron=new.cron,
            windows=tuple(new.windows),
            call_s=new.call_s,
            overlap_s=new.overlap_s,
            deadline_s=new.deadline_s,
            shares=tuple(new.shares),
            wait_s=float(new.wait_s),
            bake_s=float(new.bake_s),
            abort_above=new.abort_above,
            paused=before is not None and before.paused,
            created_by=actor if before is None else before.created_by,
            created_at=now if before is None else before.created_at,
            updated_at=now,
        )

    def _blank(self, token: str) -> RotationRecord:
        return RotationRecord(
            token=token,
            id="",
            step="idle",
            version=0,
            former=0,
            notes={},
            attempt=1,
            step_at=self._clock.now(),
            due_at=None,
        )

    def _on_its_way(self, state: RotationRecord, what: str) -> RotationOnItsWay:
        return RotationOnItsWay(
            f"a rotation of {state.token} is at the step {state.step}; to {what}, wait for it or `rotation abandon` it"
        )

    def _entry(
        self,
        token: str,
        change: str,
        actor: str,
        *,
        rotation: str = "",
        version: int = 0,
        step: str = "",
    ) -> RotationChanged:
        return RotationChanged(
            at=self._clock.now(), actor=actor, token=token, change=change, rotation=rotation, version=version, step=step
        )
