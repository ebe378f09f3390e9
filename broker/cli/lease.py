"""`tokenbroker lease`: who holds what, now or then, and the way to end it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final

import typer

from broker.api.views.leases import Event, Lease, LeaseName, MissingLease, Revocation, RevokeLeases
from broker.cli.failures import FAILED
from broker.cli.operating import Operator, group, operated
from broker.cli.options import read_instant, read_span
from broker.cli.output import Column, note, shown
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
    "acked_at",
    "report",
    "member",
)
"""What `lease list --json` has for each lease."""
_WAIT_MAX: Final = timedelta(seconds=60)

Token = Annotated[str | None, typer.Option("--token", metavar="NAME", help="Only of this token, or with its value.")]
Worker = Annotated[str | None, typer.Option("--worker", metavar="NAME", help="Only of this worker.")]


def _acknowledged(lease: Lease) -> str | int | None:
    """The version in use by the worker's own word, or what kept it from using one."""
    return f"failed: {lease.ack_failed}" if lease.ack_failed else lease.acked_version or None


def _leased(lease: Lease | Event | LeaseName) -> str:
    """The token, and of a pool the member whose value it is."""
    return f"{lease.token} ({lease.member})" if lease.member else lease.token


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
    """List the leases that are live now, in the order of granting; or, with --at, that were, each as it stood then."""
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
        Column("token", _leased),
        Column("version", lambda lease: lease.version or "forgotten"),
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
    "timeline",
    "tokenbroker lease timeline --token github/ci-bot",
    "tokenbroker lease timeline --worker ci-1 --from 2026-11-01T00:00:00Z --to 2026-11-02T00:00:00Z --json",
)
async def tell(
    operator: Operator,
    token: Token = None,
    worker: Worker = None,
    since: Annotated[
        datetime | None, typer.Option("--from", parser=read_instant, metavar="TIME", help="Not before this.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--to", parser=read_instant, metavar="TIME", help="Not after this.")
    ] = None,
) -> None:
    """Tell what happened to the leases of a token or a worker, in order of time: given, pushed, confirmed, ended."""
    if token is None and worker is None:
        raise typer.BadParameter("name --token, --worker or both")
    events = await operator.client.every(
        "/v1/leases/timeline",
        Event,
        {
            "token": token,
            "worker": worker,
            "from": None if since is None else since.isoformat(),
            "to": None if until is None else until.isoformat(),
        },
    )
    operator.out.listing(
        events,
        events,
        Column("at", lambda event: event.at),
        Column("event", lambda event: event.event),
        Column("version", lambda event: event.version or "forgotten"),
        Column("token", _leased),
        Column("worker", lambda event: event.worker),
        Column("lease", lambda event: event.lease),
        Column("detail", lambda event: event.detail),
        nothing="nothing is on record of that time",
    )


@operated(
    app,
    "revoke",
    'tokenbroker lease revoke --worker ci-1 --reason "laptop stolen" --wait 5s',
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

    With --wait it says of each worker whether it has wiped the value, and if not, whether it is connected and when its
    copy is over; exit code 1: somebody has not wiped. It does not wait for workers that are offline.
    """
    if sum(each is not None for each in (lease, token, worker)) != 1:
        raise typer.BadParameter("name exactly one of --lease, --token and --worker")
    if wait is not None and wait > _WAIT_MAX:
        raise typer.BadParameter("at most 60s", param_hint="--wait")
    wait_s = 0.0 if wait is None else wait.total_seconds()
    body = RevokeLeases(lease=lease, token=token, worker=worker, reason=reason, wait_s=wait_s)
    done = await operator.client.post("/v1/leases/revoke", Revocation, body, wait_s=wait_s)
    missing = {each.lease: each for each in done.missing}
    lines = [
        f"{each.lease} {each.worker} {_leased(each)}: {_proof(missing.get(each.lease), wait)}" for each in done.revoked
    ]
    operator.out.fact(done, *lines)
    if not done.revoked:
        note("nothing to revoke")
    if wait is not None and done.missing:
        note(f"tokenbroker: not confirmed within {show_span(wait)}: {', '.join(each.lease for each in done.missing)}")
        raise typer.Exit(FAILED)


def _proof(missing: MissingLease | None, wait: timedelta | None) -> str:
    """What is known of a value that was revoked: that it is wiped, or who has it still and for how long."""
    if missing is None:
        return "wiped"
    if wait is None:
        return "revoked"
    where = missing.state if missing.offline_since is None else f"offline since {shown(missing.offline_since)}"
    why = f"could not wipe it: {missing.detail}" if missing.failed else "has not answered"
    return f"NOT WIPED: {where}, {why}; its copy is over at {shown(missing.expires_at)}"
