"""Which keys the rotator `aws-iam-key` leaves alone, and how it asks for what is not known everywhere yet."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.upstream.aws.iam_key import PAUSES_S, TAG
from broker.upstream.catalog import open_rotator
from broker.upstream.errors import BadSettings, Refused
from broker.upstream.port import Rotation, Rotator, Site


class NoPauses(SystemClock):
    """The host's clocks, for whom every pause is over at once. paused_s: how long each was."""

    def __init__(self) -> None:
        self.paused_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.paused_s.append(seconds)


@pytest.fixture
def clock() -> NoPauses:
    """The time of the rotator."""
    return NoPauses()


@pytest.fixture
async def rotator(aws_environment: None, clock: NoPauses) -> AsyncIterator[Rotator]:
    """The rotator."""
    async with open_rotator("aws-iam-key", Site(clock=clock, hosts=frozenset({"127.0.0.1"}))) as opened:
        yield opened


@pytest.fixture
def user(account: Any) -> tuple[str, dict[str, Any]]:
    """A fresh user with one key, and that key."""
    name = f"u-{secrets.token_hex(4)}"
    return name, account.user(name, ["sts:GetCallerIdentity"])


def rotation(account: Any, user: str, **credentials: Secret) -> Rotation:
    """One rotation of the keys of a user."""
    return Rotation(
        token="app/aws",
        settings={"user": user, "endpoint": account.url},
        credentials=credentials or {"access_key": as_value(account.rotator_key)},
        id=secrets.token_hex(12),
    )


def as_value(key: dict[str, Any]) -> Secret:
    """A key as a token holds it."""
    return Secret(json.dumps(key).encode())


async def test_a_key_that_people_made_is_never_deleted(account: Any, rotator: Rotator, user: Any) -> None:
    """A second key that no rotation made stands in the way, and is named, and stays."""
    name, current = user
    foreign = account.key(name)
    turn = rotation(account, name)
    for _ in range(2):
        with pytest.raises(Refused, match=foreign["AccessKeyId"]):
            await rotator.create(turn, as_value(current))
    await rotator.abandon(turn, None)
    assert sorted(account.keys(name)) == sorted([current["AccessKeyId"], foreign["AccessKeyId"]])


async def test_what_another_rotation_lost_is_not_guessed_at(account: Any, rotator: Rotator, user: Any) -> None:
    """Only the rotation that made a key knows that nobody uses it; another one asks a person."""
    name, current = user
    await rotator.create(rotation(account, name), as_value(current))
    with pytest.raises(Refused, match="two keys"):
        await rotator.create(rotation(account, name), as_value(current))
    assert len(account.keys(name)) == 2


async def test_the_value_in_use_is_not_abandoned(account: Any, rotator: Rotator, user: Any) -> None:
    """Whatever is brought as the new value, a key from before the rotation stays."""
    name, current = user
    turn = rotation(account, name)
    await rotator.create(turn, as_value(current))
    await rotator.abandon(turn, as_value(current))
    assert account.keys(name) == [current["AccessKeyId"]]


async def test_the_note_on_the_user_is_taken_away(account: Any, rotator: Rotator, user: Any) -> None:
    """While a rotation goes on the user has a tag, and after it none."""
    name, current = user
    turn = rotation(account, name)
    made = await rotator.create(turn, as_value(current))
    tags = account.root.list_user_tags(UserName=name)["Tags"]
    assert tags == [{"Key": TAG, "Value": f"{turn.id} {current['AccessKeyId']}"}]
    await rotator.finish(turn, made.value, as_value(current))
    assert account.root.list_user_tags(UserName=name)["Tags"] == []


async def test_a_key_that_is_not_known_yet_is_asked_for_again(
    account: Any, rotator: Rotator, clock: NoPauses, user: Any
) -> None:
    """A new key that AWS does not know everywhere is tried again for some seconds, and then refused."""
    name, current = user
    turn = rotation(account, name)
    unknown = as_value({**current, "AccessKeyId": "AKIANEVERWASAKEY0000"})
    with pytest.raises(Refused, match="does not take the new key"):
        await rotator.test(turn, unknown)
    assert clock.paused_s == list(PAUSES_S)


async def test_a_key_of_another_user_fails_the_test(account: Any, rotator: Rotator, user: Any) -> None:
    """A key that works, but is another user's, is not what was to be made."""
    name, _ = user
    with pytest.raises(Refused, match=name):
        await rotator.test(rotation(account, name), as_value(account.root_key))


async def test_who_may_not_is_told_so(account: Any, rotator: Rotator, user: Any) -> None:
    """A policy that lacks a right is named as that, and nothing is made."""
    name, current = user
    turn = rotation(account, name, access_key=as_value(current))
    with pytest.raises(Refused, match="AccessDenied"):
        await rotator.create(turn, as_value(current))
    assert account.keys(name) == [current["AccessKeyId"]]


async def test_without_a_credential_the_sdk_finds_one(
    account: Any, rotator: Rotator, user: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that has a role of its own needs no token for it."""
    name, current = user
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", account.rotator_key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", account.rotator_key["SecretAccessKey"])
    turn = replace(rotation(account, name), credentials={})
    made = await rotator.create(turn, as_value(current))
    assert made.notes["access_key_id"] in account.keys(name)


@pytest.mark.parametrize("value", [b"", b"AKIAEXAMPLEONLY00000", b"{}", b'{"Version": 1}', b"\xff"])
async def test_a_value_that_is_no_key_is_a_setting_to_mend(
    account: Any, rotator: Rotator, user: Any, value: bytes
) -> None:
    """If it is not known which key is in use, none is made and none deleted."""
    name, current = user
    with pytest.raises(BadSettings, match="AccessKeyId"):
        await rotator.create(rotation(account, name), Secret(value))
    assert account.keys(name) == [current["AccessKeyId"]]
