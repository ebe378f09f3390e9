"""`lease` and `session` with a real worker: who holds what, then, now, and no longer."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.api.views.leases import MissingLease
from broker.cli.lease import _proof
from broker.clock import SystemClock
from tokenbroker_client import LeaseRevoked, WorkerKey, connect

FIELDS = {
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
}


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _admit(shell: Any, worker: str, token: str) -> WorkerKey:
    key = WorkerKey.generate(worker=worker)
    shell.ok("worker", "register", worker, "--public-key", key.public_key_b64)
    shell.ok("grant", "add", f"worker:{worker}", token)
    shell.ok("token", "put", token, stdin=b"value")
    return key


HANGING = """
import asyncio, sys
from tokenbroker_client import connect
async def main(url, key, token):
    async with connect(url, key=key) as broker, broker.lease(token):
        print("leased", flush=True)
        await asyncio.Event().wait()
asyncio.run(main(*sys.argv[1:]))
"""


async def _run(function: Any, *arguments: object) -> Any:
    return await asyncio.to_thread(function, *arguments)


async def test_a_lease_is_listed_revoked_and_its_wipe_confirmed(house: Any) -> None:
    """The list has exactly its fields; revoke with --wait names the lease as wiped; then none is live."""
    key = await _run(_admit, house.shell, "l-1", "lease/a")
    async with connect(house.url, key=key) as broker, broker.lease("lease/a") as lease:
        (listed,) = await _run(house.shell.json, "lease", "list", "--worker", "l-1")
        assert set(listed) == FIELDS
        assert (listed["token"], listed["version"], listed["worker"], listed["state"]) == ("lease/a", 1, "l-1", "live")
        (session,) = await _run(house.shell.json, "session", "list", "--worker", "l-1")
        assert (session["session"], session["leases"]) == (listed["session"], 1)
        reference = {"lease": listed["lease"], "worker": "l-1", "token": "lease/a", "member": ""}
        done = await _run(
            house.shell.json, "lease", "revoke", "--worker", "l-1", "--reason", "test is over", "--wait", "10"
        )
        assert done == {"revoked": [reference], "wiped": [reference], "missing": []}
        with pytest.raises(LeaseRevoked):
            _ = lease.value
    assert await _run(house.shell.json, "lease", "list", "--worker", "l-1") == []
    (ended,) = await _run(house.shell.json, "lease", "list", "--worker", "l-1", "--all")
    assert ended["state"] == "revoked"


async def test_a_rotation_shows_as_acknowledged(house: Any) -> None:
    """After a put the lease is listed with the version that its worker said it uses."""
    key = await _run(_admit, house.shell, "l-2", "lease/b")
    async with connect(house.url, key=key) as broker, broker.lease("lease/b") as lease:
        changes = lease.changes()
        await _run(lambda: house.shell.ok("token", "put", "lease/b", stdin=b"another"))
        await anext(changes)
        clock = SystemClock()
        for _ in range(200):
            (listed,) = await _run(house.shell.json, "lease", "list", "--token", "lease/b")
            if listed["acked_version"] == 2:
                break
            await clock.sleep(0.05)
        assert (listed["version"], listed["acked_version"], lease.value) == (2, 2, "another")


async def test_a_value_refused_upstream_is_listed(house: Any) -> None:
    """What the worker reported stands beside its lease, for people and in the document."""
    key = await _run(_admit, house.shell, "l-report", "lease/report")
    async with connect(house.url, key=key) as broker, broker.lease("lease/report") as lease:
        lease.report_rejected()
        clock = SystemClock()
        for _ in range(200):
            (listed,) = await _run(house.shell.json, "lease", "list", "--token", "lease/report")
            if listed["report"] is not None:
                break
            await clock.sleep(0.05)
        assert (listed["report"]["event"], listed["report"]["version"]) == ("rejected", 1)
        assert "rejected (version 1)" in (await _run(house.shell.ok, "lease", "list", "--token", "lease/report")).out


async def test_the_past_can_be_asked_about(house: Any) -> None:
    """--at lists what was live at that instant, whatever became of it."""
    key = await _run(_admit, house.shell, "l-3", "lease/c")
    async with connect(house.url, key=key) as broker, broker.lease("lease/c"):
        (listed,) = await _run(house.shell.json, "lease", "list", "--worker", "l-3")
        then = datetime.fromisoformat(listed["granted_at"]) + timedelta(milliseconds=1)
    before = (then - timedelta(minutes=1)).isoformat()
    at_that_time = await _run(house.shell.json, "lease", "list", "--worker", "l-3", "--at", then.isoformat())
    assert [lease["lease"] for lease in at_that_time] == [listed["lease"]]
    assert await _run(house.shell.json, "lease", "list", "--worker", "l-3", "--at", before) == []


async def test_an_instant_that_is_not_on_record_is_refused(house: Any) -> None:
    """Of the future, and of before the retention, nothing is claimed; the bound is named."""
    for when, bound in (("2099-01-01T00:00:00Z", "after the broker's time"), ("2020-01-01T00:00:00Z", "retention")):
        for verb in (("list", "--at"), ("timeline", "--worker", "l-3", "--from")):
            assert bound in await _run(house.shell.refused, "lease", *verb, when)


async def test_the_story_of_a_lease_is_told(house: Any) -> None:
    """Granted, pushed, applied, reported and released, in order, for people and in the document."""
    key = await _run(_admit, house.shell, "l-tale", "lease/tale")
    clock = SystemClock()
    async with connect(house.url, key=key) as broker, broker.lease("lease/tale") as lease:
        changes = lease.changes()
        await _run(lambda: house.shell.ok("token", "put", "lease/tale", stdin=b"another"))
        await anext(changes)
        lease.report_rejected()
        for _ in range(200):
            (listed,) = await _run(house.shell.json, "lease", "list", "--token", "lease/tale")
            if listed["acked_version"] == 2 and listed["report"] is not None:
                break
            await clock.sleep(0.05)
    told: list[Any] = []
    for _ in range(200):
        told = await _run(house.shell.json, "lease", "timeline", "--token", "lease/tale", "--worker", "l-tale")
        if told[-1]["event"] == "released":
            break
        await clock.sleep(0.05)
    assert sorted(told[0]) == ["at", "detail", "event", "lease", "member", "token", "version", "worker"]
    events = [(each["event"], each["version"]) for each in told]
    assert events[:2] == [("granted", 1), ("pushed", 2)]
    assert sorted(events[2:4]) == [("applied", 2), ("reported", 2)]
    assert events[4:] == [("released", 2)]
    assert "released" in (await _run(house.shell.ok, "lease", "timeline", "--token", "lease/tale")).out
    then = told[1]["at"]
    (stood,) = await _run(house.shell.json, "lease", "list", "--token", "lease/tale", "--at", told[0]["at"])
    assert (stood["version"], stood["acked_version"], stood["report"]) == (1, 0, None)
    (stood,) = await _run(house.shell.json, "lease", "list", "--token", "lease/tale", "--at", then)
    assert (stood["version"], stood["acked_version"]) == (2, 0)


def test_a_timeline_is_of_a_token_or_a_worker(house: Any) -> None:
    """Of everything at once it is a usage error."""
    assert house.shell.run("lease", "timeline").code == 2


def test_a_worker_that_does_not_confirm_is_named(house: Any, tmp_path: Path) -> None:
    """Revoking from a worker that hangs: exit code 1 with --wait, and the lease is among the missing."""
    _admit(house.shell, "l-4", "lease/d").save(tmp_path / "key")
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, house.url, str(tmp_path / "key"), "lease/d"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "leased\n"
        process.send_signal(signal.SIGSTOP)
        ran = house.shell.run("lease", "revoke", "--worker", "l-4", "--reason", "r", "--wait", "1s", "--json")
        assert ran.code == 1
        assert [lease["worker"] for lease in ran.document["missing"]] == ["l-4"]
        assert ran.document["revoked"][0]["lease"] in ran.complaint
        (missing,) = ran.document["missing"]
        assert (missing["state"], missing["failed"], missing["offline_since"]) == ("connected", False, None)
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({}, "NOT WIPED: connected, has not answered; its copy is over at 2026-01-01T12:05:00Z"),
        (
            {"failed": True, "detail": "no room"},
            "NOT WIPED: connected, could not wipe it: no room; its copy is over at 2026-01-01T12:05:00Z",
        ),
        (
            {"state": "offline", "offline_since": NOON},
            "NOT WIPED: offline since 2026-01-01T12:00:00Z, has not answered; its copy is over at 2026-01-01T12:05:00Z",
        ),
    ],
    ids=["silent", "failed", "offline"],
)
def test_people_read_who_has_not_wiped_and_until_when(said: dict[str, Any], told: str) -> None:
    """One line for each, with what is known."""
    missing = {"state": "connected", "failed": False, "detail": "", "offline_since": None, **said}
    lease = MissingLease(lease="l", worker="w", token="t", member="", expires_at=NOON + timedelta(minutes=5), **missing)
    assert _proof(lease, timedelta(seconds=1)) == told
    assert _proof(None, timedelta(seconds=1)) == "wiped"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--worker", "w"),
        ("--reason", "r"),
        ("--reason", "r", "--worker", "w", "--token", "a/b"),
        ("--reason", "r", "--worker", "w", "--wait", "61s"),
    ],
)
def test_a_revocation_names_one_thing_and_a_reason(house: Any, arguments: tuple[str, ...]) -> None:
    """Anything else is a usage error, and nothing is revoked."""
    assert house.shell.run("lease", "revoke", *arguments).code == 2


def test_revoking_what_nobody_holds_is_no_failure(house: Any) -> None:
    """The report is empty and the exit code 0: what was asked for is so."""
    done = house.shell.json("lease", "revoke", "--token", "nobody/holds-it", "--reason", "r", "--wait", "5s")
    assert done == {"revoked": [], "wiped": [], "missing": []}
