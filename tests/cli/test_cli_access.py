"""`access review` and `grant prune`: shown, written as CSV and JSON, safe for spreadsheets, and never by mistake."""

from __future__ import annotations

import asyncio
import csv
import io
from datetime import timedelta
from pathlib import Path
from typing import Any

from broker.cli.access import CSV_FIELDS, _cell
from broker.clock import SystemClock
from broker.uses import SYSTEM
from storage.catalog import open_storage
from storage.port import Commit
from storage.records import UseRecord
from tokenbroker_client import WorkerKey, connect


def _admit(shell: Any, worker: str, token: str, *more: str) -> WorkerKey:
    key = WorkerKey.generate(worker=worker)
    shell.ok("worker", "register", worker, "--public-key", key.public_key_b64, *more)
    shell.ok("grant", "add", f"worker:{worker}", token)
    shell.ok("token", "put", token, stdin=b"value")
    return key


async def test_a_used_grant_is_shown_with_its_use(house: Any) -> None:
    """Who leased what by which grant, in the document, in the table and in the file; admins are there too."""
    key = await asyncio.to_thread(_admit, house.shell, "ar-1", "access/a", "--label", "vendor=acme")
    async with connect(house.url, key=key) as broker, broker.lease("access/a"):
        document = await asyncio.to_thread(
            lambda: house.shell.json("access", "review", "--worker", "ar-1", "--third-party-label", "vendor")
        )
        (line,) = document["access"]
        assert (line["worker"], line["pattern"], line["last_token"]) == ("ar-1", "access/a", "access/a")
        assert line["last_used_at"] is not None
        assert line["findings"] == ["third_party"]
        assert "root" in [admin["admin"] for admin in document["admins"]]
        assert document["recorded_since"] <= line["last_used_at"]
        shown = await asyncio.to_thread(lambda: house.shell.ok("access", "review", "--worker", "ar-1"))
        assert "access/a" in shown.out
        written = await asyncio.to_thread(lambda: house.shell.ok("access", "review", "--group", "none", "--csv", "-"))
        assert all(row["account"].startswith("admin:") for row in csv.DictReader(io.StringIO(written.out)))


def test_the_review_can_be_a_file_for_spreadsheets(house: Any, tmp_path: Any) -> None:
    """One row a line, with the fields by name; nothing of it is printed."""
    _admit(house.shell, "ar-2", "access/b", "--label", "note==cmd|calc")
    ran = house.shell.ok("access", "review", "--worker", "ar-2", "--csv", tmp_path / "review.csv")
    assert not ran.out
    rows = list(csv.DictReader((tmp_path / "review.csv").read_text().splitlines()))
    assert tuple(rows[0]) == CSV_FIELDS
    (row,) = [row for row in rows if row["account"] == "worker:ar-2"]
    assert (row["pattern"], row["labels"], row["last_used_at"]) == ("access/b", "note==cmd|calc", "")
    assert "never_used" in row["findings"]


def test_no_cell_is_a_formula() -> None:
    """What a spreadsheet would run is led in by an apostrophe; all else stands as it is."""
    for text in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"):
        assert _cell(text).startswith("'")
    assert [_cell(value) for value in ("a=b", None, [], {}, 5, ["x", "y"])] == ["a=b", "", "", "", "5", "x, y"]


def test_an_empty_review_is_a_document_all_the_same(house: Any) -> None:
    """Of a group that nobody is in."""
    assert house.shell.json("access", "review", "--group", "nobody-here")["access"] == []


def test_a_review_is_one_thing(house: Any) -> None:
    """CSV and JSON at once is a usage error."""
    assert house.shell.run("access", "review", "--csv", "-", "--json").code == 2


def test_nothing_is_pruned_that_cannot_be_known_unused(house: Any) -> None:
    """A broker that has kept uses for a minute refuses, and says since when it has."""
    assert "on record since" in house.shell.refused("grant", "prune", "--unused", "90d", "--yes")
    assert "on record since" in house.shell.refused("grant", "prune", "--unused", "90d", "--dry-run")


async def _kept_since(folder: Path, days: int) -> None:
    async with open_storage(f"sqlite:///{folder / 'broker.db'}") as storage:
        then = SystemClock().now() - timedelta(days=days)
        actor, grant = SYSTEM
        since = UseRecord(actor=actor, grant=grant, first_at=then, last_at=then, last_token="")
        await storage.commit(Commit(inserts=[since]))


def test_young_grants_are_not_pruned(folder: Path, serve_in: Any) -> None:
    """Where uses are on record for long, a grant that was made today stays all the same."""
    asyncio.run(_kept_since(folder, 100))
    with serve_in(folder) as house:
        house.shell.ok("grant", "add", "group:ci", "a/*")
        for how, dry in (("--dry-run", True), ("--yes", False)):
            done = house.shell.json("grant", "prune", "--unused", "90d", how)
            assert (done["grants"], done["dry_run"]) == ([], dry)
        assert len(house.shell.json("grant", "list")) == 1


def test_pruning_wants_a_word(house: Any) -> None:
    """Where nobody can be asked, it is --yes or --dry-run."""
    ran = house.shell.run("grant", "prune", "--unused", "90d")
    assert (ran.code, ran.out) == (2, "")
