"""`tokenbroker issuer`: tokens whose values are made for each lease. What was made is `tokenbroker issued`."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.api.views.issuers import InstalledIssuers, Issuer, SetIssuer
from broker.cli.operating import Operator, group, operated
from broker.cli.options import read_labels, read_pairs
from broker.cli.output import Column
from broker.cli.token import Name, path_of

app = group("Have values made for each lease, and ended upstream with it.")


@operated(
    app,
    "set",
    "tokenbroker issuer set db/reports --issuer postgresql-user --credential password=db/admin \\",
    "    --setting host=db.example --setting dbname=app --setting user=broker --setting roles=reporting",
    "tokenbroker issuer set db/reports --issuer postgresql-user --max-leases 50 …",
)
async def set_issuer(
    operator: Operator,
    *,
    name: Name,
    issuer: Annotated[str, typer.Option("--issuer", metavar="I", help="See `issuer issuers`.")],
    setting: Annotated[
        list[str] | None, typer.Option("--setting", metavar="K=V", help="Nothing secret; may be given several times.")
    ] = None,
    credential: Annotated[
        list[str] | None,
        typer.Option("--credential", metavar="NAME=TOKEN", help="The token that holds what the issuer signs in with."),
    ] = None,
    max_leases: Annotated[
        int | None, typer.Option("--max-leases", metavar="N", min=1, help="Values at a time in all; 100.")
    ] = None,
    max_leases_per_worker: Annotated[
        int | None, typer.Option("--max-leases-per-worker", metavar="N", min=1, help="And of one worker; 10.")
    ] = None,
    keyring: Annotated[str | None, typer.Option("--keyring", metavar="K", help="Of a new token.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="Of a new token.")] = None,
) -> None:
    """Have the values of a token made for each lease; the first time makes the token.

    Another issuer, other settings and other credentials: only while the token is disabled and `issued list` shows none
    of it.
    """
    body = SetIssuer(
        issuer=issuer,
        settings=read_pairs(setting or [], "--setting"),
        credentials=read_pairs(credential or [], "--credential"),
        leases_max=max_leases,
        worker_leases_max=max_leases_per_worker,
        keyring=keyring,
        labels=read_labels(label) if label else None,
    )
    made = await operator.client.post(f"{path_of(name)}/-/issuer", Issuer, body)
    operator.out.fact(made, f"{made.token}: each lease has a value made by {made.issuer}, {made.leases_max} at a time")


@operated(app, "list", "tokenbroker issuer list")
async def list_issuers(operator: Operator) -> None:
    """List the tokens whose values are made for each lease."""
    found = await operator.client.every("/v1/issuers", Issuer)
    operator.out.listing(
        found,
        found,
        Column("token", lambda each: each.token),
        Column("issuer", lambda each: each.issuer),
        Column("at a time", lambda each: each.leases_max),
        Column("of one worker", lambda each: each.worker_leases_max),
        Column("since", lambda each: each.created_at),
        Column("by", lambda each: each.created_by),
        nothing="no token has an issuer; give it one with `tokenbroker issuer set NAME`",
    )


@operated(app, "show", "tokenbroker issuer show db/reports")
async def show(operator: Operator, name: Name) -> None:
    """Show how the values of a token are made."""
    found = await operator.client.get(f"{path_of(name)}/-/issuer", Issuer)
    operator.out.details(
        found,
        {
            "token": found.token,
            "issuer": found.issuer,
            "settings": found.settings,
            "credentials": found.credentials,
            "at a time": found.leases_max,
            "of one worker": found.worker_leases_max,
            "since": found.created_at,
            "by": found.created_by,
        },
    )


@operated(app, "issuers", "tokenbroker issuer issuers")
async def issuers(operator: Operator) -> None:
    """List the issuers that the broker has."""
    installed = await operator.client.get("/v1/issuers/installed", InstalledIssuers)
    operator.out.fact(installed, *installed.issuers)
