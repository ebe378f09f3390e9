"""`tokenbroker grant`: who may lease what. What a grant means is docs/explain/policy.md."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import Annotated

import typer

from broker.api.views.access import Pruned, PruneGrants, UnusedGrant
from broker.api.views.grants import AddGrant, AskGrant, Grant, GrantTest
from broker.cli.client import segment
from broker.cli.operating import Operator, group, operated
from broker.cli.options import read_instant, read_span, span_seconds
from broker.cli.output import Column, note, shown
from broker.spans import show_span

app = group("Say which workers and groups may lease which tokens.")

Subject = Annotated[str, typer.Argument(metavar="worker:NAME|group:NAME")]


@operated(
    app,
    "add",
    "tokenbroker grant add group:ci 'github/*' --ttl 5m --max-ttl 1h",
    "tokenbroker grant add worker:backup 'db/**' --expires 2026-12-31T00:00:00Z",
)
async def add(
    operator: Operator,
    *,
    subject: Subject,
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="github/* for one segment, github/** for any depth.")
    ],
    ttl: Annotated[
        timedelta | None, typer.Option(parser=read_span, metavar="SPAN", help="Of a lease that asks for none.")
    ] = None,
    max_ttl: Annotated[timedelta | None, typer.Option(parser=read_span, metavar="SPAN", help="The longest.")] = None,
    expires: Annotated[
        datetime | None, typer.Option(parser=read_instant, metavar="TIME", help="After this it allows nothing.")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="Only from these networks; may be given several times.")
    ] = None,
    previous: Annotated[
        bool, typer.Option("--previous", help="The previous version too, when it is asked for.")
    ] = False,
) -> None:
    """Allow a worker or group to lease the tokens that a pattern names. Without TTLs: 5m, at most 1h."""
    body = AddGrant(
        subject=subject,
        pattern=pattern,
        ttl_s=span_seconds(ttl),
        max_ttl_s=span_seconds(max_ttl),
        expires_at=expires,
        source_cidrs=tuple(source or ()),
        previous=previous,
    )
    grant = await operator.client.create("/v1/grants", Grant, body)
    operator.out.fact(grant, f"grant {grant.grant}: {grant.subject} may lease {grant.pattern}")


@operated(app, "list", "tokenbroker grant list --subject group:ci")
async def list_grants(
    operator: Operator,
    subject: Annotated[str | None, typer.Option(metavar="worker:NAME|group:NAME", help="Only its grants.")] = None,
) -> None:
    """List the grants."""
    grants = await operator.client.every("/v1/grants", Grant, {"subject": subject})
    operator.out.listing(
        grants,
        grants,
        Column("grant", lambda grant: grant.grant),
        Column("subject", lambda grant: grant.subject),
        Column("pattern", lambda grant: grant.pattern),
        Column("ttl", lambda grant: show_span(timedelta(seconds=grant.ttl_s))),
        Column("max ttl", lambda grant: show_span(timedelta(seconds=grant.max_ttl_s))),
        Column("from", lambda grant: grant.source_cidrs),
        Column("windows", lambda grant: len(grant.windows) or None),
        Column("previous", lambda grant: grant.previous),
        Column("expires", lambda grant: grant.expires_at),
        nothing="no grants yet, so nobody may lease anything; add one with `tokenbroker grant add`",
    )


@operated(app, "remove", "tokenbroker grant remove 1f0c3v9m2k…")
async def remove(operator: Operator, grant: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Remove a grant; leases that only it allowed are revoked."""
    await operator.client.delete(f"/v1/grants/{segment(grant)}")
    operator.out.fact({"grant": grant, "removed": True}, f"grant {grant} is removed")


@operated(
    app,
    "prune",
    "tokenbroker grant prune --unused 90d --dry-run",
    "tokenbroker grant prune --unused 90d --yes --json",
)
async def prune(
    operator: Operator,
    *,
    unused: Annotated[timedelta, typer.Option(parser=read_span, metavar="SPAN", help="Such as 90d; at least 1d.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove the grants that are at least so old and that nobody used for so long; leases they allowed are revoked.

    Refused where uses are not on record for that long: then nobody can tell.
    """
    span_s = span_seconds(unused) or 0
    if not (dry_run or yes):
        if not sys.stdin.isatty() or operator.out.json:
            raise typer.BadParameter("name --dry-run to see which, or --yes to remove them")
        found, _ = await _pruned(operator, PruneGrants(unused_s=span_s, dry_run=True))
        for each in found:
            note(_told(each, "unused"))
        if not found or not typer.confirm(f"Remove these {len(found)} grants?", err=True):
            note("nothing is removed")
            return
    grants, since = await _pruned(operator, PruneGrants(unused_s=span_s, dry_run=dry_run))
    document = {"dry_run": dry_run, "recorded_since": since, "grants": grants}
    operator.out.fact(document, *(_told(each, "unused" if dry_run else "removed") for each in grants))
    if not grants:
        note("no grant is unused for that long")


async def _pruned(operator: Operator, ask: PruneGrants) -> tuple[list[UnusedGrant], datetime | None]:
    grants: list[UnusedGrant] = []
    while True:
        page = await operator.client.post("/v1/grants/prune", Pruned, ask, wait_s=90.0, again=ask.dry_run)
        grants += page.grants
        if page.next is None:
            return grants, page.recorded_since
        ask = PruneGrants(unused_s=ask.unused_s, dry_run=ask.dry_run, after=page.next)


def _told(grant: UnusedGrant, what: str) -> str:
    last = "never used" if grant.last_used_at is None else f"last used {shown(grant.last_used_at)}"
    return f"{what}: grant {grant.grant}, {grant.subject} may lease {grant.pattern}; {last}, by {grant.created_by}"


@operated(app, "test", "tokenbroker grant test worker:ci-1 github/ci-bot")
async def explain(
    operator: Operator,
    worker: Annotated[str, typer.Argument(metavar="worker:NAME")],
    token: Annotated[str, typer.Argument(metavar="TOKEN")],
    source: Annotated[str | None, typer.Option(metavar="ADDRESS", help="As if it connected from there.")] = None,
    previous: Annotated[bool, typer.Option("--previous", help="The previous version of the token.")] = False,
) -> None:
    """Say which grant lets a worker lease a token, or why none does."""
    kind, separator, name = worker.partition(":")
    if separator and kind != "worker":
        raise typer.BadParameter("only a worker leases; write worker:NAME", param_hint="worker:NAME")
    body = AskGrant(worker=name if separator else worker, token=token, source=source, previous=previous)
    told = await operator.client.post("/v1/grants/test", GrantTest, body)
    operator.out.fact(told, *told.lines)
