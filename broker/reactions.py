"""What this replica does when rows change: refresh its books, then tell the workers whom it concerns.

The order matters: first memory, then pushes that decide with it. Reading the feed is `feed`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from broker.authority.authority import Authority
from broker.errors import Tampered
from broker.leases.context import Context
from broker.leases.duties import Duties
from broker.policy.book import GrantBook
from broker.session.sessions import Sessions
from broker.vault.vault import FLUSHED
from storage.port import Change
from storage.records import (
    GrantRecord,
    LeaseRecord,
    MemberRecord,
    PoolRecord,
    RolloutRecord,
    TokenRecord,
    VersionRecord,
    WorkerRecord,
)


class Reactions:
    """Applies pages of the change feed."""

    def __init__(
        self,
        *,
        authority: Authority,
        grants: GrantBook,
        context: Context,
        duties: Duties,
        sessions: Sessions,
        rollouts_changed: Callable[[Sequence[str]], None],
    ) -> None:
        """rollouts_changed: told of which tokens the rollout changed; of none where that is not known."""
        self._authority = authority
        self._grants = grants
        self._context = context
        self._duties = duties
        self._sessions = sessions
        self._rollouts_changed = rollouts_changed

    async def apply(self, changes: Sequence[Change]) -> None:
        """Bring memory in line and push the consequences. Raises Tampered, Unavailable, or what storage raises.

        Tampered authority rows hold up no revocation: what can be believed is acted upon first. Values wait, for
        nobody knows then who may still have them.
        """
        if any((change.table, change.key) == FLUSHED for change in changes):
            self._context.vault.flush()
        # A version that is announced without its token was sealed anew: the same value, so nobody is told of it.
        resealed = _names(changes, VersionRecord.table.name)
        self._context.heads.forget([*resealed, *_names(changes, TokenRecord.table.name)])
        refused: Tampered | None = None
        try:
            told = await self._authority.refresh(changes)
        except Tampered as error:
            refused, told = error, self._authority.pending()
        changes = [*changes, *told]
        tokens = _names(changes, TokenRecord.table.name)
        self._context.heads.forget(tokens)
        await self._context.pools.follow(_names(changes, MemberRecord.table.name))
        self._authority_changed(
            workers=_names(changes, WorkerRecord.table.name), grants=_names(changes, GrantRecord.table.name)
        )
        if rollouts := _names(changes, RolloutRecord.table.name):
            # Before anything is pushed, so that no worker that gets it is lost sight of.
            self._rollouts_changed(rollouts)
        for token in tokens:
            find = partial(self._context.holdings.of_token, token)
            self._duties.recheck(find, values=refused is None, heads=(token,))
        self._pools_changed(_names(changes, PoolRecord.table.name), tokens, values=refused is None)
        if leases := _names(changes, LeaseRecord.table.name):
            # Another replica revoked them, or this one did and has already let go.
            self._duties.reconcile(lambda: leases)
        if refused is not None:
            raise refused

    async def reload(self) -> None:
        """Bring memory in line without knowing what changed: everything is read or checked again. Errors as `apply`."""
        self._context.vault.flush()
        self._context.heads.forget_all()
        told = await self._authority.reload()
        await self._context.pools.reload()
        self._authority_changed(
            workers=_names(told, WorkerRecord.table.name), grants=_names(told, GrantRecord.table.name)
        )
        self._rollouts_changed(())
        self._duties.recheck(lambda: list(self._context.holdings))
        self._duties.reconcile(lambda: list(self._context.holdings.by_lease))

    def _pools_changed(self, pools: list[str], tokens: list[str], *, values: bool) -> None:
        """pools: whose own rows changed. tokens: that changed, and may be members."""
        known, holdings = self._context.pools, self._context.holdings
        for pool in pools:
            self._duties.recheck(partial(holdings.of_token, pool), values=values, heads=(pool,))
            known.stir(pool)
        for token in tokens:
            known.stir(token)
            for pool in known.of_member(token):
                known.stir(pool)

    def _authority_changed(self, *, workers: list[str], grants: list[str]) -> None:
        for grant in grants:
            self._grant_changed(grant)
        if workers:
            self._sessions.workers_changed(workers)
        if grants:
            self._sessions.grants_changed()

    def _grant_changed(self, grant: str) -> None:
        row = self._authority.grants.get((grant,))
        if row is None:
            self._grants.remove(grant)
        else:
            self._grants.put(row)


def _names(changes: Sequence[Change], table: str) -> list[str]:
    return list(dict.fromkeys(str(change.key[0]) for change in changes if change.table == table and change.key))
