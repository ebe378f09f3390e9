"""`token rollout`: begun, followed to its end, looked at, taken back, listed."""

from __future__ import annotations

import asyncio
import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from broker.api.views.rollouts import Rollout
from broker.cli.rollout_view import view_on
from tokenbroker_client import ChangeRejected, WorkerKey, connect

AT_ONCE = ("--bake", "0s")


def two_versions(shell: Any, token: str) -> None:
    shell.ok("token", "put", token, stdin=b"one")
    shell.ok("token", "put", token, "--stage", "pending", stdin=b"two")


def test_a_rollout_is_followed_to_its_end(house: Any) -> None:
    """The document is the last one; without a terminal each step is a line on standard error."""
    two_versions(house.shell, "rollout/a")
    ran = house.shell.ok(
        *("token", "rollout", "rollout/a", "--version", "2", "--canary", "0.5%", "--then", "100%", *AT_ONCE, "--json")
    )
    assert (ran.document["state"], ran.document["shares"], ran.document["holders"]) == ("done", [50, 10_000], 0)
    assert "step 1/2, 0.5% of the workers" in ran.err
    assert house.shell.json("token", "show", "rollout/a")["current"] == 2
    assert house.shell.json("token", "rollout", "status", "rollout/a", "--watch")["state"] == "done"


async def test_one_that_was_taken_back_is_a_failure(house: Any) -> None:
    """Exit code 1, who failed on standard output, and the reason in one line."""
    shell = house.shell
    await asyncio.to_thread(two_versions, shell, "rollout/bad")
    key = WorkerKey.generate(worker="picky")
    await asyncio.to_thread(shell.ok, "worker", "register", "picky", "--public-key", key.public_key_b64)
    await asyncio.to_thread(shell.ok, "grant", "add", "worker:picky", "rollout/*")

    def refuse(_: object) -> None:
        raise ChangeRejected("too short")

    async with connect(house.url, key=key) as broker, broker.lease("rollout/bad") as lease:
        lease.on_change(refuse)
        ran = await asyncio.to_thread(
            shell.run, "token", "rollout", "rollout/bad", "--version", "2", *AT_ONCE, "--json"
        )
        assert ran.code == 1
        assert "taken back: of 1 holders at 100%: 1 failed" in ran.complaint
        assert [(name["worker"], name["why"]) for name in ran.document["failed"]] == [("picky", "failed: too short")]
    told = await asyncio.to_thread(shell.ok, "token", "rollout", "status", "rollout/bad")
    assert "picky, lease " in told.out


async def test_detached_it_runs_on_and_can_be_aborted(house: Any) -> None:
    """It is shown with the token, listed, and ended by hand."""
    shell = house.shell
    await asyncio.to_thread(two_versions, shell, "rollout/slow")
    begun = await asyncio.to_thread(
        shell.json, "token", "rollout", "rollout/slow", "--version", "2", "--bake", "1h", "--detach"
    )
    assert begun["state"] == "running"
    assert "2, to 100%" in (await asyncio.to_thread(shell.ok, "token", "show", "rollout/slow")).out
    said = await asyncio.to_thread(shell.refused, "token", "promote", "rollout/slow", "2")
    assert "token rollout abort rollout/slow" in said
    ended = await asyncio.to_thread(shell.json, "token", "rollout", "abort", "rollout/slow")
    assert (ended["state"], ended["reason"]) == ("rolled_back", "aborted by admin:root")
    listed = {row["token"]: row for row in await asyncio.to_thread(shell.json, "token", "rollout", "list")}
    assert (listed["rollout/slow"]["rollout"], listed["rollout/slow"]["state"]) == (begun["rollout"], "rolled_back")


def test_a_token_called_like_a_command_is_rolled_out_by_start(house: Any) -> None:
    """`start` takes any name."""
    two_versions(house.shell, "status")
    ended = house.shell.json("token", "rollout", "start", "status", "--version", "2", *AT_ONCE)
    assert (ended["token"], ended["state"]) == ("status", "done")


def test_on_a_terminal_a_bar_says_how_many_confirmed() -> None:
    """Of how many, how many did not, and which step that is."""
    shown = io.StringIO()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    rollout = Rollout(
        token="a",
        rollout="r",
        version=2,
        before=1,
        state="running",
        step=0,
        shares=[500, 10_000],
        share=500,
        reason="",
        started_by="admin:root",
        started_at=now,
        ended_at=None,
        wait_s=1.0,
        bake_s=0.0,
        abort_above=100,
        retire="never",
        deadline_s=1.0,
        step_at=now,
        answered_at=None,
        holders=9,
        confirmed=5,
        waiting=1,
        failed_count=1,
        silent_count=1,
        lost_count=1,
        failed=[],
        silent=[],
        lost=[],
        unanswered=[],
        untold=[],
    )
    with view_on(Console(file=shown, force_terminal=True, width=120)) as view:
        view.show(rollout)
    assert "a version 2: step 1/2, 5% of the workers" in shown.getvalue()
    assert "5 of 9 confirmed, 3 did not" in shown.getvalue()


@pytest.mark.parametrize("share", ["5", "101%", "-1%", "1.234%", "half", "%"])
def test_what_is_no_share_is_a_usage_error(house: Any, share: str) -> None:
    """Exit code 2, and what a share looks like."""
    ran = house.shell.run("token", "rollout", "rollout/none", "--version", "2", f"--canary={share}")
    assert ran.code == 2
    assert "5% or 0.5%" in " ".join(ran.err.split())


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (("--canary", "5%"), "end with 100%"),
        (("--canary", "50%", "--then", "5%", "--then", "100%"), "larger than the one before"),
        (("--wait", "0s"), "wait: from 1 s to 31 days, not 0 s"),
        (("--abort-on-failed", "100%"), "less than 100%"),
    ],
)
def test_steps_and_times_out_of_bounds_are_refused(house: Any, terms: tuple[str, ...], said: str) -> None:
    """With the bound; nothing begins."""
    house.shell.ok("token", "put", "rollout/terms", stdin=b"one")
    assert said in house.shell.refused("token", "rollout", "rollout/terms", "--version", "1", *terms)
    assert "ever rolled out" in house.shell.refused("token", "rollout", "status", "rollout/terms")
