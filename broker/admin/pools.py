"""Make and change pools: tokens whose leases have the value of one of several members.

A token that is its own only member is one of which only so many leases may live at a time. Who gets which member is
`broker.leases.pools.line`'s to say, showing a pool `pool_book`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from broker.admin.asked import COOL_DOWN_S_MAX, MEMBERS_MAX, SEATS_MAX, WITNESSES_MAX, NewPool
from broker.admin.errors import Exists, InUse, PoolRefused, TooMany, WrongKind
from broker.admin.keys import DEFAULT_KEYRING
from broker.admin.once import Once, nothing_beside
from broker.admin.plan import Plan, carry_out, check_revision
from broker.admin.stored import Stored
from broker.admin.token_book import TokenBook
from broker.audit.entries import PoolChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import NotFound
from broker.policy.errors import excerpt
from broker.policy.names import parse_token_name
from storage.port import PAGE_MAX, Delete, Expect
from storage.records import LeaseRecord, MemberRecord, PoolRecord, SeatRecord, TokenRecord

POOLS_MAX: Final = 1000
COOL_DOWN_S: Final = 30
WITNESSES: Final = 2
REASON_CHARS_MAX: Final = 256


class PoolAdmin:
    """Pools are authority: every change is signed, audited and announced in one commit."""

    def __init__(self, *, authority: Authority, book: TokenBook, stored: Stored, clock: Clock) -> None:
        self._authority = authority
        self._book = book
        self._stored = stored
        self._clock = clock

    def get(self, name: str) -> PoolRecord:
        """The pool. NotFound: there is none of that name."""
        record = self._authority.pools.get((name,))
        if record is None:
            raise NotFound(f"pool {excerpt(name)}: there is no such pool; `token pool list` shows those there are")
        return record

    async def define(
        self, new: NewPool, *, actor: str, if_match: int | None = None, once: Once = nothing_beside
    ) -> PoolRecord:
        """Make a pool, or let an existing one be this. Leases whose member is no longer in it are revoked.

        PoolRefused: out of bounds, or a member that cannot be one. Exists: a token of that name has values of its own.
        WrongKind: its values are made for each lease. NotFound: no such member. PreconditionFailed. TooMany.
        """
        parse_token_name(new.token)

        async def decide() -> Plan[PoolRecord]:
            before = self._authority.pools.get((new.token,))
            if before is None and if_match:
                raise NotFound(f"pool {new.token}: there is no such pool, so it has no revision {if_match}")
            if before is not None:
                check_revision(f"pool {new.token}", before, if_match)
            after = self._record(new, before, actor)
            if before is not None and _same(before, after):
                return Plan(result=before, entries=())
            token = await self._token(after, before)
            expects = tuple([await self._member(after, name) for name in after.members if name != after.token])
            return Plan(
                result=after,
                entries=(self._entry(after, "set", actor),),
                inserts=((after,) if before is None else ()) + ((token,) if token.rev == 1 else ()),
                updates=(() if before is None else (after,)) + ((token,) if token.rev > 1 else ()),
                expects=expects,
                aside=await once(after.token),
            )

        return await carry_out(self._authority, decide)

    async def add_member(self, name: str, member: str, *, actor: str, if_match: int | None = None) -> PoolRecord:
        """One member more; one that is in it stays. As `define`; PreconditionFailed also: the pool has just changed."""
        pool = self.get(name)
        wanted = pool.members if member in pool.members else (*pool.members, member)
        return await self._with(pool, wanted, actor, if_match)

    async def remove_member(self, name: str, member: str, *, actor: str, if_match: int | None = None) -> PoolRecord:
        """One member less; leases that have its value are revoked. PoolRefused: it is the last one. As `add_member`."""
        pool = self.get(name)
        return await self._with(pool, [each for each in pool.members if each != member], actor, if_match)

    async def _with(self, pool: PoolRecord, members: Sequence[str], actor: str, if_match: int | None) -> PoolRecord:
        revision = pool.rev if if_match is None else if_match
        return await self.define(NewPool(token=pool.token, members=members), actor=actor, if_match=revision)

    async def delete(self, name: str, *, actor: str, if_match: int | None = None) -> None:
        """End a pool; its leases are revoked. A token that is its own only member stays, and is bounded no longer."""

        async def decide() -> Plan[None]:
            record = self.get(name)
            check_revision(f"pool {name}", record, if_match)
            token = await self._book.token(name)
            own = record.members == (name,)
            return Plan(
                result=None,
                entries=(self._entry(record, "deleted", actor),),
                updates=(self._kind(token, "stored"),) if own else (),
                deletes=(
                    Delete(PoolRecord, record.key, record.rev),
                    *(() if own else (Delete(TokenRecord, token.key, token.rev),)),
                    *await self._free_seats(name),
                    *[Delete(MemberRecord, row.key, row.rev) for row in await self._rows(name)],
                ),
            )

        return await carry_out(self._authority, decide)

    async def quarantine(self, name: str, member: str, *, reason: str, actor: str) -> None:
        """Lease this member to nobody until it is released; leases that live go on. NotFound. PoolRefused."""
        if not 1 <= len(reason) <= REASON_CHARS_MAX:
            raise PoolRefused(f"reason: 1 to {REASON_CHARS_MAX} characters say why")
        now = self._clock.now()
        await self._put_aside(name, member, "quarantined", actor, reason=reason, quarantined_at=now)

    async def release(self, name: str, member: str, *, actor: str) -> None:
        """Let this member be leased again: out of quarantine, and rested. One that does well stays so. NotFound."""
        await self._put_aside(name, member, "released", actor, reason="", quarantined_at=None)

    async def _put_aside(
        self, name: str, member: str, change: str, actor: str, *, reason: str, quarantined_at: datetime | None
    ) -> None:
        async def decide() -> Plan[None]:
            pool = self.get(name)
            if member not in pool.members:
                raise NotFound(f"pool {name} has no member {excerpt(member)}; `token pool show` names those it has")
            row = await self._stored.get(MemberRecord, (name, member))
            if row is None and quarantined_at is None:
                return Plan(result=None, entries=())
            after = MemberRecord(
                rev=1 if row is None else row.rev + 1,
                token=name,
                member=member,
                cool_until=None,
                quarantined_at=quarantined_at,
                reason=reason,
                changed_at=self._clock.now(),
            )
            entry = PoolChanged(
                at=self._clock.now(), actor=actor, token=name, change=change, members=(member,), reason=reason
            )
            return Plan(
                result=None,
                entries=(entry,),
                inserts=(after,) if row is None else (),
                updates=() if row is None else (after,),
                announce=((MemberRecord.table.name, after.key),),
            )

        await carry_out(self._authority, decide)

    def _record(self, new: NewPool, before: PoolRecord | None, actor: str) -> PoolRecord:
        members = tuple(dict.fromkeys(new.members))
        leases_max = (0 if before is None else before.leases_max) if new.leases_max is None else new.leases_max
        cool_down_s = (
            (COOL_DOWN_S if before is None else before.cool_down_s) if new.cool_down_s is None else new.cool_down_s
        )
        witnesses = (WITNESSES if before is None else before.witnesses) if new.witnesses is None else new.witnesses
        _check_bounds(new.token, members, leases_max, cool_down_s, witnesses)
        if before is None and len(self._authority.pools) >= POOLS_MAX:
            raise TooMany(f"pools: there are {POOLS_MAX}, the most; delete some first")
        now = self._clock.now()
        return PoolRecord(
            rev=1 if before is None else before.rev + 1,
            token=new.token,
            members=members,
            leases_max=leases_max,
            cool_down_s=cool_down_s,
            witnesses=witnesses,
            created_by=actor if before is None else before.created_by,
            created_at=now if before is None else before.created_at,
            updated_at=now,
        )

    async def _token(self, pool: PoolRecord, before: PoolRecord | None) -> TokenRecord:
        """The token's row as the pool needs it, its next revision."""
        name, now = pool.token, self._clock.now()
        token = await self._book.find(name)
        own = pool.members == (name,)
        if before is not None and own is not (before.members == (name,)):
            raise PoolRefused(f"pool {name}: delete it first; a token cannot turn from a pool of others into its own")
        if own and (holder := self._pool_of(name)) is not None and holder.token != name:
            raise InUse(f"token {name} is a member of pool {holder.token}; bound the pool's leases instead")
        if token is None:
            if own:
                raise NotFound(f"token {name}: there is no such token; put its value first")
            return TokenRecord(
                name=name,
                keyring=DEFAULT_KEYRING,
                labels={},
                disabled=False,
                current=0,
                latest=0,
                previous_valid_s=0,
                created_at=now,
                updated_at=now,
                kind="pool",
            )
        if token.kind == "issued":
            raise WrongKind(f"token {name} has values that are made for each lease; it cannot be a pool")
        if token.kind == "stored" and not own:
            raise Exists(f"token {name} has values of its own; choose another name for the pool")
        return self._kind(token, "pool")

    async def _member(self, pool: PoolRecord, name: str) -> Expect:
        """That it may be a member, and stays so until this is written."""
        token = await self._book.find(parse_token_name(name))
        if token is None:
            raise NotFound(f"member {name}: there is no such token; put its value first")
        if token.kind != "stored":
            raise PoolRefused(f"member {name}: it is {_A_KIND[token.kind]}; a member has values of its own")
        holder = self._pool_of(name)
        if holder is not None and holder.token != pool.token:
            raise InUse(f"token {name} is a member of pool {holder.token}; a token is in one pool at most")
        return Expect(TokenRecord, token.key, token.rev)

    def _pool_of(self, member: str) -> PoolRecord | None:
        return next((pool for pool in self._authority.pools if member in pool.members), None)

    async def _free_seats(self, name: str) -> list[Delete]:
        """Seats whose leases are over. The others stay: a pool made anew of this name must count who may resume."""
        page = await self._stored.select(SeatRecord, prefix=(name,), limit=PAGE_MAX)
        leases = await self._stored.get_many(LeaseRecord, [(row.lease,) for row in page.records])
        live = {lease.lease for lease in leases.values() if lease.state == "live"}
        return [Delete(SeatRecord, row.key, row.rev) for row in page.records if row.lease not in live]

    async def _rows(self, name: str) -> Sequence[MemberRecord]:
        return (await self._stored.select(MemberRecord, prefix=(name,), limit=PAGE_MAX)).records

    def _kind(self, token: TokenRecord, kind: str) -> TokenRecord:
        return msgspec.structs.replace(token, rev=token.rev + 1, updated_at=self._clock.now(), kind=kind)

    def _entry(self, pool: PoolRecord, change: str, actor: str) -> PoolChanged:
        return PoolChanged(
            at=self._clock.now(),
            actor=actor,
            token=pool.token,
            change=change,
            members=pool.members,
            leases_max=pool.leases_max,
        )


_A_KIND: Final = {"pool": "a pool or bounded itself", "issued": "made for each lease"}


def _check_bounds(name: str, members: Sequence[str], leases_max: int, cool_down_s: int, witnesses: int) -> None:
    if not 1 <= len(members) <= MEMBERS_MAX:
        raise PoolRefused(f"pool {name}: it has 1 to {MEMBERS_MAX} members, not {len(members)}")
    if name in members and len(members) > 1:
        raise PoolRefused(f"pool {name}: a token is a member of itself only alone")
    if leases_max < 0 or leases_max * len(members) > SEATS_MAX:
        raise PoolRefused(
            f"pool {name}: leases_max {leases_max} of {len(members)} members; together they have at most {SEATS_MAX} "
            "places, or any number with 0"
        )
    if members == (name,) and not leases_max:
        raise PoolRefused(f"token {name}: say how many leases it may have at a time; delete the pool to bound nothing")
    if not 1 <= cool_down_s <= COOL_DOWN_S_MAX:
        raise PoolRefused(f"pool {name}: cool_down_s {cool_down_s} is not 1 to {COOL_DOWN_S_MAX}")
    if not 1 <= witnesses <= WITNESSES_MAX:
        raise PoolRefused(f"pool {name}: witnesses {witnesses} is not 1 to {WITNESSES_MAX}")


def _same(before: PoolRecord, after: PoolRecord) -> bool:
    said = ("members", "leases_max", "cool_down_s", "witnesses")
    return all(getattr(before, name) == getattr(after, name) for name in said)
