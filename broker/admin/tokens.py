"""Change tokens that are there: stages, labels, disabling, destroying, deleting.

Storing values is in `put`, showing them in `reveal`, reading in `token_book`, the rules of stages in `stages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from broker.admin.naming import check_unnamed
from broker.admin.plan import Plan, carry_out, check_revision
from broker.admin.put import Put
from broker.admin.stages import (
    check_destroyable,
    check_not_rolling,
    check_promotable,
    check_retirable,
    former,
    restaged,
    step_down,
)
from broker.admin.token_book import TokenBook
from broker.admin.values import check_previous_valid_s
from broker.audit.entries import TokenChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.policy.labels import parse_labels
from broker.vault.vault import Vault
from storage.port import Delete
from storage.records import IssuerRecord, RolloutRecord, TokenRecord, VersionRecord


class TokenAdmin:
    """Every change of a token is one commit with its audit entry; workers that hold it learn of it through the feed."""

    def __init__(self, *, authority: Authority, book: TokenBook, vault: Vault, clock: Clock) -> None:
        self._authority = authority
        self._book = book
        self._vault = vault
        self._clock = clock

    async def describe(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None,
        previous_valid_s: int | None,
        actor: str,
        if_match: int | None = None,
    ) -> TokenRecord:
        """Replace the labels, or how long a former value stays valid upstream; None leaves as is."""
        fields: dict[str, object] = {}
        if labels is not None:
            fields["labels"] = parse_labels(labels)
        if previous_valid_s is not None:
            fields["previous_valid_s"] = check_previous_valid_s(previous_valid_s)
        return await self._change(name, "labelled", fields, actor, if_match)

    async def disable(self, name: str, *, actor: str, if_match: int | None = None) -> TokenRecord:
        """Lease it to nobody until it is enabled again; leases that live are revoked."""
        return await self._change(name, "disabled", {"disabled": True}, actor, if_match)

    async def enable(self, name: str, *, actor: str, if_match: int | None = None) -> TokenRecord:
        """Lease it again."""
        return await self._change(name, "enabled", {"disabled": False}, actor, if_match)

    async def promote(self, name: str, version: int, *, actor: str, if_match: int | None = None) -> Put:
        """Make a version current; the current one becomes previous, the previous one retired.

        A version that is current already stays so and nothing is written. Gone: it is destroyed. NotFound.
        RolloutRunning: a version is being rolled out.
        """
        return await carry_out(self._authority, lambda: self.promotion(name, version, actor=actor, if_match=if_match))

    async def promotion(self, name: str, version: int, *, actor: str, if_match: int | None = None) -> Plan[Put]:
        """What `promote` would commit, for a commit that does more. Raises as `promote`."""
        token = await self._book.token(name)
        check_revision(f"token {name}", token, if_match)
        check_not_rolling(token)
        target = await self._book.version(name, version)
        check_promotable(target)
        if token.current == version:
            return Plan(result=Put(token=token, version=target), entries=())
        return self._making_current(token, target, await self._book.stepping_down(token), "promoted", actor)

    async def rollback(self, name: str, *, actor: str, if_match: int | None = None) -> Put:
        """Make the previous version current again; the current one becomes previous. The value is opened first.

        NoFormer: there is no previous version, or it is the later one. RolloutRunning: a version is being rolled out.
        What `Vault.open` raises: it cannot be opened now. NotFound. Then nothing has changed.
        """

        async def decide() -> Plan[Put]:
            token = await self._book.token(name)
            check_revision(f"token {name}", token, if_match)
            check_not_rolling(token)
            live = await self._book.stepping_down(token)
            target = former(token, live)
            (await self._vault.open(target)).wipe()
            return self._making_current(token, target, live, "rolled_back", actor)

        return await carry_out(self._authority, decide)

    async def retire(self, name: str, version: int, *, actor: str, if_match: int | None = None) -> Put:
        """Let a pending or previous version be leased to nobody; it stays sealed, and can be promoted again.

        One that is retired already stays so and nothing is written. InUse: it is current. RolloutRunning: it is being
        rolled out. Gone: destroyed. NotFound.
        """
        return await carry_out(self._authority, lambda: self.retirement(name, version, actor=actor, if_match=if_match))

    async def retirement(self, name: str, version: int, *, actor: str, if_match: int | None = None) -> Plan[Put]:
        """What `retire` would commit, for a commit that does more. Raises as `retire`."""
        token = await self._book.token(name)
        check_revision(f"token {name}", token, if_match)
        target = await self._book.version(name, version)
        check_retirable(token, target)
        if target.stage == "retired":
            return Plan(result=Put(token=token, version=target), entries=())
        head = self._next(token, previous=0 if token.previous == version else token.previous)
        retired = restaged(target, "retired")
        return Plan(
            result=Put(token=head, version=retired),
            entries=(self._entry(name, "retired", actor, version),),
            updates=(head, retired),
        )

    async def destroy(self, name: str, version: int, *, actor: str, if_match: int | None = None) -> Put:
        """Empty a version for good. InUse: it is current and the token is enabled. Gone: it was before. NotFound.

        RolloutRunning: it is being rolled out, or is current meanwhile.
        """

        async def decide() -> Plan[Put]:
            token = await self._book.token(name)
            check_revision(f"token {name}", token, if_match)
            target = await self._book.version(name, version)
            check_destroyable(token, target)
            gone = {stage: 0 for stage in ("current", "previous") if getattr(token, stage) == version}
            head = self._next(token, **gone)
            emptied = restaged(target, "destroyed")
            return Plan(
                result=Put(token=head, version=emptied),
                entries=(self._entry(name, "destroyed", actor, version),),
                updates=(head, emptied),
            )

        return await carry_out(self._authority, decide)

    async def delete(self, name: str, *, actor: str, if_match: int | None = None) -> None:
        """Remove a token with all its versions. One that has over 1000 goes in several commits, disabled by the first.

        NotFound; PreconditionFailed. InUse: a policy names it, or, where its values are made for leases, some may still
        exist upstream; its issuer goes with it. RolloutRunning: a version is being rolled out.
        Cut short, it leaves a disabled token; deleting again goes on.
        """

        async def decide() -> Plan[bool]:
            token = await self._book.token(name)
            check_revision(f"token {name}", token, if_match)
            check_unnamed(self._authority, name)
            check_not_rolling(token)
            page = await self._book.versions(name, after=None)
            versions = tuple(Delete(VersionRecord, record.key, record.rev) for record in page.records)
            if page.next is None:
                rollout = await self._book.rollout(name)
                ended = () if rollout is None else (Delete(RolloutRecord, rollout.key, rollout.rev),)
                return Plan(
                    result=True,
                    entries=(self._entry(name, "deleted", actor),),
                    deletes=(Delete(TokenRecord, token.key, token.rev), *await self._issuer(token), *ended, *versions),
                )
            return Plan(
                result=False,
                entries=(self._entry(name, "disabled", actor),),
                updates=(self._next(token, disabled=True, current=0, previous=0),),
                deletes=versions,
            )

        while not await carry_out(self._authority, decide):
            if_match = None

    async def _issuer(self, token: TokenRecord) -> tuple[Delete, ...]:
        """What goes with a token whose values are made. InUse: some are there, which only its issuer can end."""
        issuer = self._authority.issuers.get((token.name,))
        if issuer is None:
            return ()
        await self._book.check_unissued(token, whereupon="it can be deleted")
        return (Delete(IssuerRecord, issuer.key, issuer.rev),)

    def _making_current(
        self, token: TokenRecord, target: VersionRecord, live: Iterable[VersionRecord], change: str, actor: str
    ) -> Plan[Put]:
        """live: the current version and the previous one, those there are; the target may be among them."""
        others = [other for other in live if other.version != target.version]
        head = self._next(token, current=target.version, previous=token.current)
        promoted = restaged(target, "current")
        return Plan(
            result=Put(token=head, version=promoted),
            entries=(self._entry(token.name, change, actor, target.version),),
            updates=(head, promoted, *step_down(others)),
        )

    async def _change(
        self, name: str, change: str, fields: Mapping[str, object], actor: str, if_match: int | None
    ) -> TokenRecord:
        async def decide() -> Plan[TokenRecord]:
            token = await self._book.token(name)
            check_revision(f"token {name}", token, if_match)
            if all(getattr(token, field) == value for field, value in fields.items()):
                return Plan(result=token, entries=())
            after = self._next(token, **fields)
            return Plan(result=after, entries=(self._entry(name, change, actor),), updates=(after,))

        return await carry_out(self._authority, decide)

    def _next(self, token: TokenRecord, **fields: object) -> TokenRecord:
        return msgspec.structs.replace(token, rev=token.rev + 1, updated_at=self._clock.now(), **fields)

    def _entry(self, token: str, change: str, actor: str, version: int = 0) -> TokenChanged:
        return TokenChanged(at=self._clock.now(), actor=actor, token=token, change=change, version=version)
