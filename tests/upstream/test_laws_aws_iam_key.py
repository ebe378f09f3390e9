"""The rotator `aws-iam-key` keeps the laws, on a moto server that checks signatures and policies."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import botocore.exceptions
import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.upstream.catalog import open_rotator
from broker.upstream.conformance import BadTerms, RotatorLaws, RotatorWorld
from broker.upstream.port import Site


@dataclass(kw_only=True)
class UserWorld(RotatorWorld):
    """One IAM user."""

    account: Any
    user: str

    async def works(self, value: Secret) -> bool:
        sts = self.account.client("sts", json.loads(value.reveal()))
        try:
            sts.get_caller_identity()
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in ("InvalidClientTokenId", "SignatureDoesNotMatch"):
                raise
            return False
        return True

    async def live(self) -> int:
        return len(self.account.keys(self.user))

    def wrong(self, value: Secret) -> Secret:
        return Secret(json.dumps({**json.loads(value.reveal()), "SecretAccessKey": "never/was/one"}).encode())


class NoPauses(SystemClock):
    """The host's clocks, for whom every pause is over at once: moto is consistent, so that waiting gains nothing."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(0)


@asynccontextmanager
async def user_world(account: Any, *, first: bool) -> AsyncIterator[UserWorld]:
    """A fresh user, and another one whose key has to stay."""
    name, other = f"app-{secrets.token_hex(4)}", f"other-{secrets.token_hex(4)}"
    bystander, current = account.user(other, ["sts:GetCallerIdentity"]), account.user(name, ["sts:GetCallerIdentity"])
    if first:
        account.root.delete_access_key(UserName=name, AccessKeyId=current["AccessKeyId"])
    settings = {"user": name, "region": "us-east-1", "endpoint": account.url}
    named = {"access_key": "laws/key"}

    def bad(names: str, **changed: str) -> BadTerms:
        return BadTerms(names=names, settings={**settings, **changed}, credentials=named)

    def value(key: dict[str, Any]) -> Secret:
        return Secret(json.dumps(key).encode())

    async with open_rotator("aws-iam-key", Site(clock=NoPauses(), hosts=frozenset({"127.0.0.1"}))) as rotator:
        yield UserWorld(
            account=account,
            user=name,
            rotator=rotator,
            settings=settings,
            credentials={"access_key": value(account.rotator_key)},
            wrong_credentials={"access_key": value({**account.rotator_key, "SecretAccessKey": "not-its-secret-key"})},
            current=None if first else value(current),
            bystander=value(bystander),
            bad_terms=(
                BadTerms(names="user", settings={}, credentials=named),
                bad("user", user="a/b"),
                bad("region", region="the moon"),
                bad("endpoint", endpoint="http://elsewhere.example"),
                bad("colour", colour="red"),
                BadTerms(names="secret", settings=settings, credentials={"secret": "x/y"}),
            ),
        )


class TestAwsIamKey(RotatorLaws):
    """Keys of a fresh user for each law."""

    name: ClassVar[str] = "aws-iam-key"

    @pytest.fixture
    async def world(self, account: Any, aws_environment: None) -> AsyncIterator[RotatorWorld]:
        """A user with one key, which is in use."""
        async with user_world(account, first=False) as world:
            yield world

    @pytest.fixture
    async def first_world(self, account: Any, aws_environment: None) -> AsyncIterator[RotatorWorld]:
        """A user without a key."""
        async with user_world(account, first=True) as world:
            yield world
