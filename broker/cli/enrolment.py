"""`tokenbroker enrolment`: the one-time codes that `worker enroll` has issued."""

from __future__ import annotations

from typing import Annotated

import typer

from broker.api.views.workers import Enrolment
from broker.cli.client import segment
from broker.cli.operating import Operator, group, operated
from broker.cli.output import Column

app = group("See which one-time codes are open, and withdraw them.")


@operated(app, "list", "tokenbroker enrolment list")
async def list_enrolments(
    operator: Operator,
    all_: Annotated[bool, typer.Option("--all", help="Used ones too, and those that have expired.")] = False,
) -> None:
    """List the codes that can still be redeemed, without what redeems them."""
    codes = await operator.client.every("/v1/enrolments", Enrolment, {"open": None if all_ else "true"})
    operator.out.listing(
        codes,
        codes,
        Column("enrolment", lambda code: code.enrolment),
        Column("worker", lambda code: code.worker),
        Column("groups", lambda code: code.groups),
        Column("by", lambda code: code.created_by),
        Column("created", lambda code: code.created_at),
        Column("expires", lambda code: code.expires_at),
        Column("used", lambda code: code.used_at),
        nothing="no open codes",
    )


@operated(app, "withdraw", "tokenbroker enrolment withdraw 1f0c3v9m2k…")
async def withdraw(operator: Operator, enrolment: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Make a code worth nothing before anybody uses it."""
    await operator.client.delete(f"/v1/enrolments/{segment(enrolment)}")
    operator.out.fact({"enrolment": enrolment, "withdrawn": True}, f"enrolment {enrolment} is withdrawn")
