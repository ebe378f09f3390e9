"""`tokenbroker issued`: what exists upstream because it was made for leases, and what is still to be ended there."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.api.views.issuers import Issued
from broker.cli.client import segment
from broker.cli.operating import Operator, group, operated
from broker.cli.output import Column

app = group("See what was made for leases, and whether it is gone upstream.")


@operated(app, "list", "tokenbroker issued list", "tokenbroker issued list --token db/reports")
async def list_issued(
    operator: Operator,
    token: Annotated[str | None, typer.Option("--token", metavar="NAME", help="Only what was made of it.")] = None,
) -> None:
    """List what was made for leases. A lease that is over stands here until its value is gone upstream."""
    found = await operator.client.every("/v1/issued", Issued, {"token": token})
    operator.out.listing(
        found,
        found,
        Column("lease", lambda each: each.lease),
        Column("token", lambda each: each.token),
        Column("worker", lambda each: each.worker),
        Column("state", lambda each: each.state),
        Column("upstream", lambda each: each.handle),
        Column("made", lambda each: each.made_at),
        Column("ending since", lambda each: each.ended_at),
        Column("attempts", lambda each: each.attempts or None),
        Column("next", lambda each: each.next_at),
        Column("error", lambda each: each.error),
        nothing="nothing that was made for a lease exists upstream",
    )


@operated(app, "forget", "tokenbroker issued forget 01985a…")
async def forget(operator: Operator, lease: Annotated[str, typer.Argument(metavar="LEASE")]) -> None:
    """Take it for gone, because you have ended it upstream yourself. The audit log says that you said so."""
    await operator.client.delete(f"/v1/issued/{segment(lease)}")
    operator.out.fact({"lease": lease, "forgotten": True}, f"what was made for lease {lease} counts as gone")
