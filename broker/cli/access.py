"""`tokenbroker access`: review who may lease what, and whether they do. Printed as it arrives, however much it is."""

from __future__ import annotations

import csv
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, TextIO

import msgspec
import typer

from broker.api.views.access import AccessLine, AccessPage, AdminUse
from broker.cli.client import PAGE, AdminClient
from broker.cli.operating import Operator, group, operated
from broker.cli.options import read_span, span_seconds
from broker.cli.output import Column, note, shown, write_line
from broker.spans import show_span

app = group("Review who may lease what.")

CSV_FIELDS: Final = (
    "account",
    "roles",
    "groups",
    "labels",
    "disabled",
    "account_expires_at",
    "last_connected_at",
    "grant",
    "subject",
    "pattern",
    "ttl_s",
    "max_ttl_s",
    "created_by",
    "created_at",
    "expires_at",
    "last_used_at",
    "last_token",
    "findings",
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula, and runs."""


@operated(
    app,
    "review",
    "tokenbroker access review --unused 30d --expiring 14d",
    "tokenbroker access review --third-party-label vendor --flagged --csv review.csv",
)
async def review(
    operator: Operator,
    *,
    unused: Annotated[
        timedelta | None, typer.Option(parser=read_span, metavar="SPAN", help="Called unused after it, 30d.")
    ] = None,
    expiring: Annotated[
        timedelta | None, typer.Option(parser=read_span, metavar="SPAN", help="Called expiring within it, 14d.")
    ] = None,
    worker: Annotated[str | None, typer.Option(metavar="NAME", help="Only this worker.")] = None,
    group_: Annotated[str | None, typer.Option("--group", metavar="G", help="Only its members.")] = None,
    label: Annotated[str | None, typer.Option(metavar="K=V", help="Only workers with this label.")] = None,
    third_party_label: Annotated[
        str | None, typer.Option("--third-party-label", metavar="KEY", help="Workers with it are marked as others'.")
    ] = None,
    flagged: Annotated[bool, typer.Option("--flagged", help="Only lines with a finding.")] = False,
    csv_file: Annotated[
        str | None, typer.Option("--csv", metavar="FILE", help="Write a table for spreadsheets; - is standard output.")
    ] = None,
) -> None:
    """Show each worker with each grant that applies to it: when it was last used, and what deserves a look.

    Findings: unused, never_used, expiring, expired, no_token, no_grant, worker_disabled, worker_expiring,
    worker_expired, never_connected, not_connected, third_party.
    """
    if csv_file is not None and operator.out.json:
        raise typer.BadParameter("choose --csv or --json")
    query: dict[str, str | int | None] = {
        "unused_s": span_seconds(unused),
        "expiring_s": span_seconds(expiring),
        "worker": worker,
        "group": group_,
        "label": label,
        "third_party_label": third_party_label,
        "flagged": "true" if flagged else None,
    }
    admins = await operator.client.every("/v1/access/admins", AdminUse)
    pages = _pages(operator.client, query)
    if csv_file is not None:
        await _to_csv(csv_file, admins, pages)
    elif operator.out.json:
        await _to_json(admins, pages)
    else:
        await _to_people(operator, admins, pages)


async def _pages(client: AdminClient, query: Mapping[str, str | int | None]) -> AsyncIterator[AccessPage]:
    cursor: str | None = None
    while True:
        page = await client.get("/v1/access/review", AccessPage, {**query, "limit": PAGE, "cursor": cursor})
        yield page
        cursor = page.next
        if cursor is None:
            return


async def _to_json(admins: list[AdminUse], pages: AsyncIterator[AccessPage]) -> None:
    """One document whose list is written page by page, so that it may be longer than memory."""
    before = b""
    async for page in pages:
        if not before:
            head = msgspec.json.encode({"recorded_since": page.recorded_since, "admins": admins})
            sys.stdout.buffer.write(head.removesuffix(b"}") + b',"access":[')
            before = b"\n"
        for line in page.items:
            sys.stdout.buffer.write(before + msgspec.json.encode(line))
            before = b",\n"
    sys.stdout.buffer.write(b"]}\n")
    sys.stdout.buffer.flush()


async def _to_people(operator: Operator, admins: list[AdminUse], pages: AsyncIterator[AccessPage]) -> None:
    since: datetime | None = None
    lines = 0
    async for page in pages:
        since = page.recorded_since
        lines += len(page.items)
        if page.items:
            operator.out.listing(
                page.items,
                page.items,
                Column("worker", lambda line: line.worker),
                Column("by", lambda line: line.subject),
                Column("pattern", lambda line: line.pattern),
                Column("ttl", lambda line: line.ttl_s and show_span(timedelta(seconds=line.ttl_s))),
                Column("max ttl", lambda line: line.max_ttl_s and show_span(timedelta(seconds=line.max_ttl_s))),
                Column("created by", lambda line: line.created_by),
                Column("last used", lambda line: line.last_used_at),
                Column("token", lambda line: line.last_token),
                Column("expires", lambda line: line.expires_at),
                Column("findings", lambda line: line.findings),
                nothing="",
            )
    if not lines:
        note("nothing to review")
    write_line("")
    operator.out.listing(
        admins,
        admins,
        Column("admin", lambda admin: admin.admin),
        Column("roles", lambda admin: admin.roles),
        Column("disabled", lambda admin: admin.disabled),
        Column("expires", lambda admin: admin.expires_at),
        Column("last used", lambda admin: admin.last_used_at),
        nothing="no admins",
    )
    note(f"uses are on record since {shown(since)}")


async def _to_csv(file: str, admins: list[AdminUse], pages: AsyncIterator[AccessPage]) -> None:
    with _written(file) as stream:
        table = csv.writer(stream)
        table.writerow(CSV_FIELDS)
        for admin in admins:
            table.writerow(_row(_of_admin(admin)))
        async for page in pages:
            for line in page.items:
                table.writerow(_row(_of_line(line)))


@contextmanager
def _written(file: str) -> Iterator[TextIO]:
    if file == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    with Path(file).open("w", encoding="utf-8", newline="") as stream:
        yield stream


def _of_admin(admin: AdminUse) -> dict[str, object]:
    return {
        "account": f"admin:{admin.admin}",
        "roles": admin.roles,
        "disabled": admin.disabled,
        "account_expires_at": admin.expires_at,
        "created_by": admin.created_by,
        "created_at": admin.created_at,
        "last_used_at": admin.last_used_at,
    }


def _of_line(line: AccessLine) -> dict[str, object]:
    facts = {name: getattr(line, name) for name in CSV_FIELDS if hasattr(line, name)}
    return {**facts, "account": f"worker:{line.worker}", "account_expires_at": line.worker_expires_at}


def _row(facts: Mapping[str, object]) -> list[str]:
    return [_cell(facts.get(name)) for name in CSV_FIELDS]


def _cell(value: object) -> str:
    """The value as text that no spreadsheet runs: what would begin a formula is led in by an apostrophe."""
    text = "" if value in (None, [], {}) else shown(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


@app.callback()
def _group() -> None:
    """Review who may lease what."""
