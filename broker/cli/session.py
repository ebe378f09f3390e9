"""`tokenbroker session`: who is connected."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.api.views.leases import Session
from broker.cli.operating import Operator, group, operated
from broker.cli.output import Column

app = group("See who is connected.")


@operated(app, "list", "tokenbroker session list --worker ci-1")
async def list_sessions(
    operator: Operator,
    worker: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this worker.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Ended ones too, as far as they are on record.")] = False,
) -> None:
    """List who is connected, to which replica, since when, and how many leases each holds."""
    sessions = await operator.client.every("/v1/sessions", Session, {"worker": worker, "all": "true" if all_ else None})
    operator.out.listing(
        sessions,
        sessions,
        Column("session", lambda session: session.session),
        Column("worker", lambda session: session.worker),
        Column("replica", lambda session: session.instance),
        Column("from", lambda session: session.source),
        Column("client", lambda session: session.client),
        Column("since", lambda session: session.connected_at),
        Column("ended", lambda session: session.ended_at),
        Column("leases", lambda session: session.leases),
        nothing="nobody is connected",
    )


@app.callback()
def _group() -> None:
    """See who is connected."""
