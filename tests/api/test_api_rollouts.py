"""Rollouts over HTTP: begun once, shown, taken back, listed; what cannot be is refused by its code."""

from __future__ import annotations

from typing import Any

import pytest

PATH = "/v1/tokens/github/ci/-/rollout"
STEPS = {"version": 2, "shares": [500, 10_000]}


@pytest.fixture
async def waiting(site: Any) -> Any:
    """A token with a current version and a pending one."""
    await site.put("github/ci")
    await site.put("github/ci", stage="pending")
    return site


async def test_a_rollout_begins_once_per_key(waiting: Any) -> None:
    """The same request again shows the same rollout, also when it has ended."""
    first = await waiting.ask("POST", PATH, STEPS, Idempotency_Key="k-1")
    assert (first.status, first.body["state"], first.body["share"]) == (201, "running", 500)
    again = await waiting.ask("POST", PATH, STEPS, Idempotency_Key="k-1")
    assert (again.status, again.body["rollout"]) == (201, first.body["rollout"])
    await waiting.ask("POST", f"{PATH}/abort")
    ended = await waiting.ask("POST", PATH, STEPS, Idempotency_Key="k-1")
    assert (ended.status, ended.body["state"]) == (201, "rolled_back")
    assert (await waiting.ask("POST", PATH, STEPS)).status == 201
    assert (await waiting.ask("POST", PATH, STEPS, Idempotency_Key="k-1")).status == 410


async def test_a_rollout_is_shown_with_its_token_and_listed(waiting: Any) -> None:
    """Readers may look; the token says which version is on its way to how many."""
    await waiting.ask("POST", PATH, STEPS)
    shown = await waiting.ask("GET", PATH, role="reader")
    assert (shown.body["version"], shown.body["before"], shown.body["abort_above"]) == (2, 1, 100)
    token = (await waiting.ask("GET", "/v1/tokens/github/ci")).body
    assert (token["current"], token["rollout"], token["rollout_share"]) == (1, 2, 500)
    (listed,) = (await waiting.ask("GET", "/v1/rollouts")).body["items"]
    assert (listed["token"], listed["state"], listed["started_by"]) == ("github/ci", "running", "admin:admin")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"version": 1}, 409, "in_use"),
        ({"version": 9}, 404, "not_found"),
        ({"version": 0}, 400, "bad_request"),
        ({"version": 2, "shares": [500]}, 400, "rollout_refused"),
        ({"version": 2, "shares": []}, 400, "rollout_refused"),
        ({"version": 2, "shares": [1] * 1001}, 400, "bad_request"),
        ({"version": 2, "wait_s": 1e300}, 400, "rollout_refused"),
        ({"version": 2, "retire": "soon"}, 400, "bad_request"),
        ({"version": 2, "canary": 5}, 400, "bad_request"),
    ],
)
async def test_what_cannot_be_rolled_out_is_refused(waiting: Any, body: Any, status: int, code: str) -> None:
    """And nothing has begun."""
    answer = await waiting.ask("POST", PATH, body)
    assert (answer.status, answer.code) == (status, code)
    assert (await waiting.ask("GET", PATH)).status == 404


async def test_while_one_runs_there_is_no_other(waiting: Any) -> None:
    """409, and a value that would be current is refused too."""
    await waiting.ask("POST", PATH, STEPS)
    assert (await waiting.ask("POST", PATH, STEPS)).code == "rollout_running"
    assert (await waiting.put("github/ci")).code == "rollout_running"
    assert (await waiting.put("github/ci", stage="pending")).status == 201


async def test_a_rollout_of_another_revision_is_refused(waiting: Any) -> None:
    """If-Match is the token's, as with every change of it."""
    rev = (await waiting.ask("GET", "/v1/tokens/github/ci")).headers["ETag"]
    await waiting.put("github/ci", stage="pending")
    assert (await waiting.ask("POST", PATH, STEPS, If_Match=rev)).status == 412
