"""`tokenbroker lease`: who holds what, now or then, and the way to end it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final

import typer

from broker.api.views.leases import Lease, Revocation, RevokeLeases
from broker.cli.failures import FAILED
from broker.cli.operating import Operator, group, operated
from broker.cli.options import read_instant, read_span
from broker.cli.output import Column, note
from broker.spans import show_span

app = group("See who holds which token, and take it away.")

FIELDS: Final = (
    "lease",
    "token",
    "version",
    "stage",
    "worker",
    "session",
    "instance",
    "state",
    "granted_at",
    "expires_at",
    "acked_version",
    "report",
)
"""What `lease list --json` has for each lease."""
_WAIT_MAX: Final = timedelta(seconds=60)

Token = Annotated[str | None, typer.Option("--token", metavar="NAME", help="Only of this token.")]
Worker = Annotated[str | None, typer.Option("--worker", metavar="NAME", help="Only of this worker.")]


def _acknowledged(lease: Lease) -> str | int | None:
    """The version in use by the worker's own word, or what kept it from using one."""
    return f"failed: {lease.ack_failed}" if lease.ack_failed else lease.acked_version or None


def _reported(lease: Lease) -> str | None:
    """What the worker said last of a value that gave trouble."""
    return None if lease.report is None else f"{lease.report.event} (version {lease.report.version})"


@operated(
    app,
    "list",
    "tokenbroker lease list --token github/ci-bot",
    "tokenbroker lease list --at 2026-11-01T12:00:00Z --json",
)
async def list_leases(
    operator: Operator,
    token: Token = None,
    worker: Worker = None,
    at: Annotated[
        datetime | None, typer.Option(parser=read_instant, metavar="TIME", help="Those that were live then.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Ended ones too, as far as they are on record.")] = False,
) -> None:
    """List the leases that are live now, in the order of granting."""
    leases = await operator.client.every(
        "/v1/leases",
        Lease,
        {
            "token": token,
            "worker": worker,
            "at": None if at is None else at.isoformat(),
            "all": "true" if all_ else None,
        },
    )
    operator.out.listing(
        leases,
        [{field: getattr(lease, field) for field in FIELDS} for lease in leases],
        Column("lease", lambda lease: lease.lease),
        Column("token", lambda lease: lease.token),
        Column("version", lambda lease: lease.version),
        Column("stage", lambda lease: lease.stage),
        Column("acked", _acknowledged),
        Column("report", _reported),
        Column("worker", lambda lease: lease.worker),
        Column("state", lambda lease: lease.state),
        Column("granted", lambda lease: lease.granted_at),
        Column("expires", lambda lease: lease.expires_at),
        nothing="no leases",
    )


@operated(
    app,
    "revoke",
    'tokenbroker lease revoke --worker ci-1 --reason "laptop stolen" --wait 5',
    'tokenbroker lease revoke --lease 06d1… --reason "left the team"',
)
async def revoke(
    operator: Operator,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Goes to the workers and into the audit log.")],
    lease: Annotated[str | None, typer.Option("--lease", metavar="ID", help="This one.")] = None,
    token: Token = None,
    worker: Worker = None,
    wait: Annotated[
        timedelta | None,
        typer.Option(parser=read_span, metavar="SPAN", help="Wait so long for workers to say they wiped, at most 60s."),
    ] = None,
) -> None:
    """Revoke one lease, or all leases of a token or of a worker; connected workers hear of it within a second.

    With --wait, exit code 1 says that a worker has not confirmed that it wiped the value.
    """
    if sum(each is not None for each in (lease, token, worker)) != 1:
        raise typer.BadParameter("name exactly one of --lease, --token and --worker")
    if wait is not None and wait > _WAIT_MAX:
        raise typer.BadParameter("at most 60s", param_hint="--wait")
    wait_s = 0.0 if wait is None else wait.total_seconds()
    body = RevokeLeases(lease=lease, token=token, worker=worker, reason=reason, wait_s=wait_s)
    done = await operator.client.post("/v1/leases/revoke", Revocation, body, wait_s=wait_s)
    wiped = {each.lease for each in done.wiped}
    lines = [
        f"{each.lease} {each.worker} {each.token}: {'wiped' if each.lease in wiped else 'revoked'}"
        for each in done.revoked
    ]
    operator.out.fact(done, *lines)
    if not done.revoked:
        note("nothing to revoke")
    if wait is not None and done.missing:
        note(f"tokenbroker: not confirmed within {show_span(wait)}: {', '.join(each.lease for each in done.missing)}")
        raise typer.Exit(FAILED)
