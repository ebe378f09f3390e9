"""An AWS account as rotators meet one: signatures are checked, and policies."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import botocore.session
import pytest

NEEDED = [
    "iam:CreateAccessKey",
    "iam:DeleteAccessKey",
    "iam:ListAccessKeys",
    "iam:ListUserTags",
    "iam:TagUser",
    "iam:UntagUser",
    "iam:UpdateAccessKey",
]
"""What docs/howto/rotate-aws-keys.md has the operator allow."""


class Account:
    """An AWS account on a server that enforces, with a rotator user that may do NEEDED, and a root who may do all."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sdk = botocore.session.Session()
        self.root = self.client("iam", None)
        self.root_key = self.user(f"root-{secrets.token_hex(4)}", ["*"])
        self.rotator_key = self.user(f"rotator-{secrets.token_hex(4)}", NEEDED)
        self.root = self.client("iam", self.root_key)

    def client(self, service: str, key: dict[str, Any] | None) -> Any:
        """A client of AWS's own SDK."""
        key = key or {"AccessKeyId": "AKIAEXAMPLEONLY00000", "SecretAccessKey": "for-tests-only"}
        return self.sdk.create_client(
            service,
            region_name="us-east-1",
            endpoint_url=self.url,
            aws_access_key_id=key["AccessKeyId"],
            aws_secret_access_key=key["SecretAccessKey"],
        )

    def user(self, name: str, allowed: list[str]) -> dict[str, Any]:
        """Make a user; its first key."""
        self.root.create_user(UserName=name)
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": allowed, "Resource": "*"}]}
        self.root.put_user_policy(UserName=name, PolicyName="allowed", PolicyDocument=json.dumps(policy))
        return self.key(name)

    def key(self, user: str) -> dict[str, Any]:
        """Make another key, as a value."""
        made = self.root.create_access_key(UserName=user)["AccessKey"]
        return {"Version": 1, "AccessKeyId": made["AccessKeyId"], "SecretAccessKey": made["SecretAccessKey"]}

    def keys(self, user: str) -> list[str]:
        """The ids of a user's keys."""
        listed = self.root.list_access_keys(UserName=user)["AccessKeyMetadata"]
        return [key["AccessKeyId"] for key in listed]


@pytest.fixture(scope="session")
def account(moto_servers: ModuleType) -> Iterator[Account]:
    """A server of these tests' own: from some moment on it enforces, for all that use it."""
    with moto_servers.serving() as server:
        account = Account(server.url)
        server.enforce()
        yield account
