"""Rollouts as operators start, watch and abort them. Bringing them forward is `rollout_driver`'s."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from broker.admin.errors import InUse, RolloutRunning
from broker.admin.kinds import check_versioned
from broker.admin.once import Once, nothing_beside
from broker.admin.plan import Plan, carry_out, check_revision
from broker.admin.stages import check_not_rolling, check_promotable
from broker.admin.stored import Stored
from broker.admin.token_book import TokenBook
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import Conflict, NotFound
from broker.ids import random_id
from broker.rotation.rollout_plans import begun, finished, taken_back
from broker.rotation.rollouts import NewRollout, Said, gather
from broker.vault.vault import Vault
from storage.port import Page
from storage.records import ReplicaRecord, RolloutRecord, RolloutTallyRecord, TokenRecord, VersionRecord
from storage.table import Key

Status = tuple[RolloutRecord, Said]


class RolloutAdmin:
    """Starts and ends rollouts, and says how far they are."""

    def __init__(
        self,
        *,
        authority: Authority,
        book: TokenBook,
        stored: Stored,
        vault: Vault,
        clock: Clock,
        replicas: Callable[[], Sequence[ReplicaRecord]],
    ) -> None:
        """replicas: who serves this database, as last seen."""
        self._authority = authority
        self._book = book
        self._stored = stored
        self._vault = vault
        self._clock = clock
        self._replicas = replicas

    async def start(
        self, name: str, new: NewRollout, *, actor: str, if_match: int | None = None, once: Once = nothing_beside
    ) -> RolloutRecord:
        """Give a version to the first share of the workers. The value is opened first.

        RolloutRefused: steps or times out of bounds. RolloutRunning: a rollout of the token has not ended. InUse: the
        version is current. Gone: it is destroyed. Conflict: the token is disabled, has no current version to go back
        to, or no versions at all. NotFound; PreconditionFailed; what `Vault.open` raises.
        """
        rollout = random_id()
        return await carry_out(
            self._authority,
            lambda: self.planned(name, new, rollout=rollout, actor=actor, if_match=if_match, once=once),
        )

    async def planned(
        self,
        name: str,
        new: NewRollout,
        *,
        rollout: str,
        actor: str,
        if_match: int | None = None,
        once: Once = nothing_beside,
    ) -> Plan[RolloutRecord]:
        """What `start` would commit, for a commit that does more. rollout: the id it will have. Raises as `start`."""
        new.check()
        token = await self._book.token(name)
        check_revision(f"token {name}", token, if_match)
        check_not_rolling(token)
        before = await self._book.rollout(name)
        if before is not None and before.ended_at is None:
            raise RolloutRunning(
                f"the rollout of version {before.version} of {name} still waits for holders to confirm; wait, or end "
                f"that with `token rollout abort {name}`"
            )
        check_versioned(self._authority, token)
        target = await self._book.version(name, new.version)
        _check_target(token, target)
        (await self._vault.open(target)).wipe()
        return begun(token, before, new, rollout=rollout, actor=actor, now=self._clock.now(), aside=await once(rollout))

    async def abort(self, name: str, *, actor: str, if_match: int | None = None) -> RolloutRecord:
        """Take a running rollout back; end one that waits for confirmations, as it is. One that has ended stays so.

        NotFound: the token had none. PreconditionFailed.
        """

        async def decide() -> Plan[RolloutRecord]:
            token = await self._book.token(name)
            check_revision(f"token {name}", token, if_match)
            rollout, said = await self.status(name)
            now, reason = self._clock.now(), f"aborted by {actor}"
            if rollout.ended_at is not None:
                return Plan(result=rollout, entries=())
            if rollout.state == "confirming" or token.rollout != rollout.version:
                return finished(rollout, said, rollout.unanswered, reason=reason, actor=actor, now=now)
            target = await self._book.version(name, rollout.version)
            return taken_back(token, target, rollout, said, reason=reason, actor=actor, now=now)

        return await carry_out(self._authority, decide)

    async def status(self, name: str) -> Status:
        """The latest rollout of the token and what its holders said. NotFound: there was none."""
        rollout = await self._book.rollout((await self._book.token(name)).name)
        if rollout is None:
            raise NotFound(
                f"token {name}: no version of it was ever rolled out; `token rollout {name} --version N` does"
            )
        if rollout.ended_at is not None:
            return rollout, _as_it_ended(rollout)
        page = await self._stored.select(RolloutTallyRecord, prefix=(name,))
        alive = {replica.instance for replica in self._replicas() if replica.ended_at is None}
        return rollout, gather(rollout, page.records, alive)

    async def rollouts(self, *, after: Key | None, limit: int) -> Page[RolloutRecord]:
        """One page of the latest rollout of each token that had one, in the order of the tokens' names."""
        page = await self._stored.select(RolloutRecord, after=after, limit=limit)
        for record in page.records:
            self._authority.verify(record)
        return page


def _check_target(token: TokenRecord, target: VersionRecord) -> None:
    check_promotable(target)
    if token.kind != "stored":
        raise Conflict(
            f"token {token.name} is bounded as a pool, which is not rolled out; promote {target.version} instead"
        )
    if token.current == target.version:
        raise InUse(f"version {target.version} of {token.name} is current already; there is nothing to roll out")
    if not token.current:
        raise Conflict(f"token {token.name} has no current version to go back to; promote {target.version} instead")
    if token.disabled:
        raise Conflict(f"token {token.name} is disabled, so nobody could try the version; enable it first")


def _as_it_ended(rollout: RolloutRecord) -> Said:
    return Said(
        holders=rollout.holders,
        confirmed=rollout.confirmed,
        failed=len(rollout.failed),
        named_failed=rollout.failed,
    )
