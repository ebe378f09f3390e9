"""Access as a whole over the API: who may review, who may prune, and what a removal leaves in the audit log."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest


async def prune(site: Any, *, dry_run: bool, role: str = "operator") -> Any:
    return await site.ask("POST", "/v1/grants/prune", {"unused_s": 90 * 86_400, "dry_run": dry_run}, role=role)


@pytest.fixture
async def aged(site: Any) -> Any:
    """A site whose uses are kept for long, with an old grant that nobody used and one that somebody did."""
    await site.services.uses.flush()
    for subject in ("group:idle", "group:busy"):
        await site.ask("POST", "/v1/grants", {"subject": subject, "pattern": "a/*"}, role="operator")
    site.clock._start += timedelta(days=91)
    (busy,) = [grant for grant in site.broker.authority.grants if grant.subject == "group:busy"]
    site.services.uses.note("worker:w", busy.id, "a/b", site.clock.monotonic())
    return site


async def test_a_dry_run_changes_nothing(aged: Any) -> None:
    """It names what would go."""
    answer = await prune(aged, dry_run=True)
    assert [grant["subject"] for grant in answer.body["grants"]] == ["group:idle"]
    assert len(aged.broker.authority.grants) == 2


async def test_what_is_pruned_is_gone_and_on_record(aged: Any) -> None:
    """Each removal is an entry of whoever asked, like any other; what was used stays."""
    answer = await prune(aged, dry_run=False)
    (gone,) = answer.body["grants"]
    assert [grant.subject for grant in aged.broker.authority.grants] == ["group:busy"]
    recorded = await aged.recorded()
    assert b'"grant.changed"' in recorded
    assert f'"actor":"admin:operator","grant":"{gone["grant"]}","change":"removed"'.encode() in recorded
    assert (await prune(aged, dry_run=False)).body["grants"] == []


def _at_a_terminal(site: Any, answer: bytes) -> tuple[int, bytes]:
    """What `grant prune` does when somebody types this answer, and what it prints."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        done = subprocess.run(
            [sys.executable, "-m", "broker.cli.main", "grant", "prune", "--unused", "90d", "--url", site.url],
            stdin=theirs,
            capture_output=True,
            timeout=60,
            env={**os.environ, "TOKENBROKER_ADMIN_TOKEN": site.credentials["operator"]},
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stdout


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", {"group:idle", "group:busy"}), (b"y\n", {"group:busy"})])
async def test_who_prunes_at_a_terminal_is_asked(aged: Any, answer: bytes, left: set[str]) -> None:
    """Only a yes removes anything, and what is removed is printed."""
    code, out = await asyncio.to_thread(_at_a_terminal, aged, answer)
    assert code == 0
    assert {grant.subject for grant in aged.broker.authority.grants} == left
    assert (b"removed: grant" in out) == (left == {"group:busy"})


@pytest.mark.parametrize(
    ("role", "review", "pruning"), [("admin", 200, 200), ("operator", 403, 200), ("auditor", 200, 403)]
)
async def test_each_role_has_its_part(aged: Any, role: str, review: int, pruning: int) -> None:
    """Auditors look, operators remove."""
    for path in ("/v1/access/review", "/v1/access/admins"):
        assert (await aged.ask("GET", path, role=role)).status == review
    assert (await prune(aged, dry_run=True, role=role)).status == pruning


@pytest.mark.parametrize("query", ["label=novalue", "cursor=x", "unused_s=-1", "what=1"])
async def test_a_review_of_nonsense_is_refused(site: Any, query: str) -> None:
    """With the field that is wrong."""
    assert (await site.ask("GET", f"/v1/access/review?{query}")).status == 400


async def test_a_request_is_a_use_of_the_admin(site: Any) -> None:
    """The review itself shows its reader as just there."""
    await site.ask("GET", "/v1/access/review", role="auditor")
    await site.services.uses.flush()
    items = (await site.ask("GET", "/v1/access/admins", role="auditor")).body["items"]
    used = {item["admin"]: item["last_used_at"] for item in items}
    assert used["auditor"] is not None
    assert used["reader"] is None
