"""With `authorize = "kms"`: a role is assumed for each worker, and its session tags decide."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiobotocore.session import AioSession

from kms.aws import open_aws
from kms.aws.workers import SESSION_S, SpeakingFor, WorkerSessions, session_tags
from kms.errors import Denied, Unavailable
from kms.port import Caller, Kms

KEY = bytes(range(32))
CONTEXT = {"app": "tokenbroker", "keyring": "tests"}
CI = Caller(worker="ci-1", groups=("builders", "nightly"))


@pytest.fixture
async def kms(aws: Any) -> AsyncIterator[Kms]:
    """The stand-in's key with the role; its policy names the worker ci-1 and the group cashiers."""
    aws.key.workers, aws.key.groups = {"ci-1"}, {"cashiers"}
    async with open_aws(aws.uri(aws.key, role=True) + "&external-id=tokenbroker-7") as opened:
        yield opened


@pytest.fixture
async def sts(aws: Any) -> AsyncIterator[Any]:
    """The SDK's STS client at the stand-in."""
    async with AioSession().create_client("sts", region_name="eu-west-1", endpoint_url=aws.url) as client:
        yield client


async def test_the_role_is_assumed_in_the_workers_name(aws: Any, kms: Kms) -> None:
    """AssumeRole names the worker, its groups and the external id, for the shortest time; the session decrypts."""
    await kms.unwrap(await kms.wrap(KEY, CONTEXT), CONTEXT, CI)
    assumed, decrypt = aws.calls[-2:]
    assert {name: assumed.body[name] for name in ("RoleSessionName", "DurationSeconds", "ExternalId")} == {
        "RoleSessionName": "@ci-1",
        "DurationSeconds": "900",
        "ExternalId": "tokenbroker-7",
    }
    assert decrypt.operation == "Decrypt"
    assert aws.sessions[decrypt.access_key] == {"worker": "ci-1", "groups": ":builders:nightly:"}


async def test_only_a_callers_decrypt_is_signed_for_him(aws: Any, kms: Kms) -> None:
    """Everything without a caller, also right after a caller's Decrypt, is signed by the broker's own role."""
    wrap = await kms.wrap(KEY, CONTEXT)
    await kms.unwrap(wrap, CONTEXT, CI)
    await kms.unwrap(wrap, CONTEXT)
    await kms.generate(CONTEXT)
    theirs = [call.operation for call in aws.calls if call.access_key in aws.sessions]
    assert theirs == ["Decrypt"]


async def test_groups_decide_too(kms: Kms) -> None:
    """A policy that names a group serves its members, and nobody whose group only looks alike."""
    wrap = await kms.wrap(KEY, CONTEXT)
    assert await kms.unwrap(wrap, CONTEXT, Caller(worker="till-4", groups=("cashiers", "north"))) == KEY
    for groups in ((), ("cashiers-2",), ("ex-cashiers",)):
        with pytest.raises(Denied):
            await kms.unwrap(wrap, CONTEXT, Caller(worker="till-5", groups=groups))


async def test_a_change_of_policy_holds_at_once(aws: Any, kms: Kms) -> None:
    """Sessions are kept, decisions are not: a worker that the policy no longer names is Denied the next time."""
    wrap = await kms.wrap(KEY, CONTEXT)
    await kms.unwrap(wrap, CONTEXT, CI)
    aws.key.workers.clear()
    with pytest.raises(Denied):
        await kms.unwrap(wrap, CONTEXT, CI)


async def test_concurrent_workers_never_share_a_session(aws: Any, kms: Kms) -> None:
    """Of forty workers that ask at once, exactly those are served whom the policy names."""
    wrap = await kms.wrap(KEY, CONTEXT)
    aws.key.workers = {f"w-{number}" for number in range(0, 40, 2)}

    async def ask(number: int) -> bool:
        try:
            return await kms.unwrap(wrap, CONTEXT, Caller(worker=f"w-{number}", groups=())) == KEY
        except Denied:
            return False

    for _ in range(2):
        assert await asyncio.gather(*map(ask, range(40))) == [number % 2 == 0 for number in range(40)]
    assert aws.operations().count("AssumeRole") == 40


async def test_a_session_is_kept_for_one_worker_and_its_groups(aws: Any, kms: Kms) -> None:
    """The same worker and groups, in any order, reuse a session; other groups get another."""
    wrap = await kms.wrap(KEY, CONTEXT)
    for groups in (("a", "b"), ("b", "a"), ("a",)):
        await kms.unwrap(wrap, CONTEXT, Caller(worker="ci-1", groups=groups))
    assert aws.operations().count("AssumeRole") == 2


async def test_a_session_that_ended_early_is_replaced_once(aws: Any, kms: Kms) -> None:
    """ExpiredToken brings a new session, and what that one is told counts: an answer, or a refusal."""
    wrap = await kms.wrap(KEY, CONTEXT)
    await kms.unwrap(wrap, CONTEXT, CI)
    aws.expired.update(aws.sessions)
    assert await kms.unwrap(wrap, CONTEXT, CI) == KEY
    assert aws.operations().count("AssumeRole") == 2
    aws.expired.update(aws.sessions)
    aws.key.workers.clear()
    with pytest.raises(Denied):
        await kms.unwrap(wrap, CONTEXT, CI)
    assert aws.operations().count("AssumeRole") == 3


async def test_calls_of_one_worker_share_one_session(aws: Any, kms: Kms) -> None:
    """However many calls a worker begins with, or find its session ended early, its role is assumed once for all."""
    wrap = await kms.wrap(KEY, CONTEXT)
    for assumed in (1, 2):
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(kms.unwrap(wrap, CONTEXT, CI)) for _ in range(8)]
        assert [call.result() for call in calls] == [KEY] * 8
        assert aws.operations().count("AssumeRole") == assumed
        aws.expired.update(aws.sessions)


async def test_a_cancelled_worker_leaves_the_others_theirs(kms: Kms) -> None:
    """Cancelling a worker's call, at whatever point, leaves the key usable, for him and for nobody else."""
    wrap = await kms.wrap(KEY, CONTEXT)
    for steps in range(12):
        async with asyncio.TaskGroup() as group:
            call = group.create_task(kms.unwrap(wrap, CONTEXT, CI))
            for _ in range(steps):
                await asyncio.sleep(0)
            call.cancel()
        assert await kms.unwrap(wrap, CONTEXT, CI) == KEY
        with pytest.raises(Denied):
            await kms.unwrap(wrap, CONTEXT, Caller(worker="stranger", groups=()))


async def test_sessions_are_replaced_before_they_end(aws: Any, aws_standin: Any, sts: Any) -> None:
    """A session is used until two minutes before its end."""
    now = 1000.0
    sessions = WorkerSessions(sts=sts, role=aws_standin.ROLE, now=lambda: now)
    first = await sessions.credentials(CI)
    now += SESSION_S - 121
    assert await sessions.credentials(CI) is first
    now += 1
    assert await sessions.credentials(CI) is not first


async def test_few_sessions_are_kept(aws: Any, aws_standin: Any, sts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the bound, the session that was used longest ago is dropped."""
    monkeypatch.setattr("kms.aws.workers.SESSIONS_MAX", 2)
    sessions = WorkerSessions(sts=sts, role=aws_standin.ROLE)
    for name in ("a", "b", "a", "c", "a", "b"):
        await sessions.credentials(Caller(worker=name, groups=()))
    assert [call.body["RoleSessionName"] for call in aws.calls] == ["@a", "@b", "@c", "@b"]


@pytest.mark.parametrize(
    ("caller", "named"),
    [
        (Caller(worker="w", groups=tuple(f"group-{number:02}" for number in range(29))), "fewer groups"),
        (Caller(worker="w", groups=("a:b",)), "colon"),
        (Caller(worker="w", groups=("",)), "empty"),
        (Caller(worker="w", groups=("a*",)), "session tag groups"),
        (Caller(worker="wörker", groups=()), "session tag worker"),
        (Caller(worker="", groups=()), "session tag worker"),
        (Caller(worker="w" * 64, groups=()), "name of an STS session"),
        (Caller(worker="w 1", groups=()), "name of an STS session"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_no_tag_can_say_is_denied(aws: Any, kms: Kms, caller: Caller, named: str) -> None:
    """A worker or groups that do not fit are Denied, with the reason; nothing is cut, and AWS is not asked."""
    wrap = await kms.wrap(KEY, CONTEXT)
    asked = len(aws.calls)
    with pytest.raises(Denied, match=named) as refused:
        await kms.unwrap(wrap, CONTEXT, caller)
    assert refused.value.kms_key == kms.uri
    assert len(aws.calls) == asked


async def test_the_longest_names_of_the_broker_fit(kms: Kms) -> None:
    """A worker's name of 63 characters, and groups of together 256 with their colons, are asked about."""
    wrap = await kms.wrap(KEY, CONTEXT)
    groups = ("cashiers", *(letter * 60 for letter in "abc"), "d" * 62)
    assert len(session_tags(Caller(worker="w", groups=groups))["groups"]) == 256
    assert await kms.unwrap(wrap, CONTEXT, Caller(worker="w" * 63, groups=groups)) == KEY


async def test_a_role_that_may_not_be_assumed_denies(aws: Any) -> None:
    """A role whose trust policy refuses the broker is Denied to every worker, and no use of the broker's own key."""
    uri = aws.uri(aws.key, role=True).replace("role/tokenbroker-worker", "role/other")
    async with open_aws(uri) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        with pytest.raises(Denied, match="AssumeRole was answered with AccessDenied"):
            await kms.unwrap(wrap, CONTEXT, CI)
        assert "Decrypt" not in aws.operations()


async def test_a_silent_sts_is_an_outage(aws: Any, aws_standin: Any, kms: Kms) -> None:
    """STS that hangs up is Unavailable; STS that answers without credentials is Denied."""
    wrap = await kms.wrap(KEY, CONTEXT)
    aws.next(aws_standin.hangs_up, aws_standin.hangs_up)
    with pytest.raises(Unavailable):
        await kms.unwrap(wrap, CONTEXT, CI)
    aws.next(aws_standin.says(b"<AssumeRoleResponse><AssumeRoleResult/></AssumeRoleResponse>"))
    with pytest.raises(Denied, match="without credentials"):
        await kms.unwrap(wrap, CONTEXT, CI)


async def test_nobody_is_spoken_for_by_default() -> None:
    """The client for workers has no credentials of its own that a call could fall back to."""
    with pytest.raises(LookupError):
        await SpeakingFor().get_frozen_credentials()
