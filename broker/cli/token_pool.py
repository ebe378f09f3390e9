"""`tokenbroker token pool`: tokens that stand for several equal ones, or that only so many may lease at a time."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from broker.api.views.pools import DefinePool, Pool, PoolMember, PoolMemberState, PoolState, QuarantineMember
from broker.cli.operating import Operator, group, operated
from broker.cli.options import read_span, span_seconds
from broker.cli.output import Column, note
from broker.policy.names import parse_token_name

app = group("Share equal tokens among workers, and bound how many hold one at a time.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the pool, which workers lease.")]
Member = Annotated[str, typer.Argument(metavar="MEMBER", help="A token of the pool.")]


@operated(
    app,
    "set",
    "tokenbroker token pool set mail/bot --member bots/mail-1 --member bots/mail-2 --max-leases 1",
    "tokenbroker token pool set db/migrations --member db/migrations --max-leases 1",
)
async def define(
    operator: Operator,
    *,
    name: Name,
    member: Annotated[list[str], typer.Option(metavar="TOKEN", help="May be given several times; all there are.")],
    max_leases: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Of each member at a time; 0 for any number.")
    ] = None,
    cool_down: Annotated[
        timedelta | None,
        typer.Option(parser=read_span, metavar="SPAN", help="How long a rate-limited member rests; 30s."),
    ] = None,
    witnesses: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="So many workers reporting a rejection quarantine a member; 2."),
    ] = None,
) -> None:
    """Make a pool of tokens, or change one. A token that is its own only member is bounded in how many lease it."""
    body = DefinePool(
        members=tuple(member), leases_max=max_leases, cool_down_s=span_seconds(cool_down), witnesses=witnesses
    )
    _say(operator, await operator.client.post(_path(name), Pool, body, again=True))


@operated(app, "list", "tokenbroker token pool list")
async def list_pools(operator: Operator) -> None:
    """List the pools."""
    pools = await operator.client.every("/v1/pools", Pool)
    operator.out.listing(
        pools,
        pools,
        Column("pool", lambda pool: pool.token),
        Column("members", lambda pool: pool.members),
        Column("max leases", lambda pool: pool.leases_max or None),
        Column("cool down", lambda pool: f"{pool.cool_down_s} s"),
        Column("witnesses", lambda pool: pool.witnesses),
        Column("updated", lambda pool: pool.updated_at),
        nothing="no pools; make one with `tokenbroker token pool set NAME --member TOKEN`",
    )


@operated(app, "show", "tokenbroker token pool show mail/bot")
async def show(operator: Operator, name: Name) -> None:
    """Show how the members of a pool do, who holds them, and who waits in line."""
    state = await operator.client.get(_path(name), PoolState)
    if operator.out.json:
        operator.out.fact(state)
        return
    holders = {
        member.member: [lease.worker for lease in state.leases if lease.member == member.member]
        for member in state.members
    }
    operator.out.listing(
        state.members,
        state.members,
        Column("member", lambda member: member.member),
        Column("leases", lambda member: _of(member.leases, state.pool.leases_max)),
        Column("health", lambda member: member.health),
        Column("why", _why),
        Column("held by", lambda member: holders[member.member]),
        nothing="no members",
    )
    if state.waiting:
        note(f"{state.waiting_count} in line, first {state.waiting[0].worker}")


@operated(app, "add-member", "tokenbroker token pool add-member mail/bot bots/mail-3")
async def add_member(operator: Operator, name: Name, member: Member) -> None:
    """Add a member to a pool."""
    _say(operator, await operator.client.post(f"{_path(name)}/add-member", Pool, PoolMember(member=member)))


@operated(app, "remove-member", "tokenbroker token pool remove-member mail/bot bots/mail-3")
async def remove_member(operator: Operator, name: Name, member: Member) -> None:
    """Take a member out of a pool; leases that have its value are revoked."""
    _say(operator, await operator.client.post(f"{_path(name)}/remove-member", Pool, PoolMember(member=member)))


@operated(app, "quarantine", 'tokenbroker token pool quarantine mail/bot bots/mail-2 --reason "account locked"')
async def quarantine(
    operator: Operator,
    *,
    name: Name,
    member: Member,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Goes into the audit log.")],
) -> None:
    """Lease a member to nobody until it is released; leases that have its value go on."""
    body = QuarantineMember(member=member, reason=reason)
    await operator.client.post(f"{_path(name)}/quarantine", Pool, body)
    operator.out.fact({"token": name, "member": member, "health": "quarantined"}, f"{member} is quarantined")


@operated(app, "release", "tokenbroker token pool release mail/bot bots/mail-2")
async def release(operator: Operator, name: Name, member: Member) -> None:
    """Let a member that is quarantined, or rests, be leased again."""
    await operator.client.post(f"{_path(name)}/release", Pool, PoolMember(member=member))
    operator.out.fact({"token": name, "member": member, "health": "well"}, f"{member} may be leased again")


@operated(app, "delete", "tokenbroker token pool delete mail/bot")
async def delete(operator: Operator, name: Name) -> None:
    """Delete a pool; its leases are revoked, its members stay. A bounded token stays, and is bounded no longer."""
    await operator.client.delete(_path(name))
    operator.out.fact({"token": name, "deleted": True}, f"pool {name} is deleted")


def _path(name: str) -> str:
    return f"/v1/tokens/{parse_token_name(name)}/-/pool"


def _say(operator: Operator, pool: Pool) -> None:
    bounds = {0: "any number of leases", 1: "at most 1 lease each"}
    each = bounds.get(pool.leases_max, f"at most {pool.leases_max} leases each")
    operator.out.fact(pool, f"{pool.token}: {', '.join(pool.members)}; {each}")


def _of(leases: int, leases_max: int) -> str:
    return f"{leases} of {leases_max}" if leases_max else str(leases)


def _why(member: PoolMemberState) -> str | None:
    if member.health == "quarantined":
        return member.reason
    return f"until {member.cool_until:%H:%M:%S}Z" if member.health == "resting" and member.cool_until else None
