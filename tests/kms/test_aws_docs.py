"""The page about AWS KMS says what the code does: its policies are read against what is really sent."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kms.aws import open_aws
from kms.aws.uri import parse_uri
from kms.aws.workers import session_tags
from kms.port import Caller

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "aws-kms.md"


def _blocks(language: str) -> list[str]:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert blocks
    return blocks


def _statements() -> Iterator[dict[str, Any]]:
    for block in _blocks("json"):
        read = json.loads(block)
        yield from read if isinstance(read, list) else read["Statement"]


def _holds(conditions: dict[str, dict[str, str]], facts: dict[str, str]) -> bool:
    """Whether IAM would find these conditions to hold; a key that is not there fails, unless its operator says so."""
    for operator, wanted in conditions.items():
        for name, pattern in wanted.items():
            if name not in facts and operator.endswith("IfExists"):
                continue
            expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
            if (
                re.fullmatch(expression if operator == "StringLike" else re.escape(pattern), facts.get(name, ""))
                is None
            ):
                return False
    return True


def test_every_uri_of_the_page_is_one() -> None:
    """Configuration on the page is TOML, and each key URI in it is taken."""
    seen = 0
    for block in _blocks("toml"):
        read = tomllib.loads(block)
        for section in (read.get("kms", {}), *read.get("keyrings", {}).values()):
            for uri in (*section.get("keys", ()), *section.get("kms_keys", ())):
                assert parse_uri(uri).region.startswith("eu-")
                seen += 1
    assert seen == 4


async def test_the_brokers_policy_permits_what_it_does(aws: Any) -> None:
    """The calls of a check, in operation and context, are those that the policy for the broker's role permits."""
    async with open_aws(aws.uri(aws.key)) as kms:
        await kms.check()
        await kms.generate({"app": "tokenbroker", "keyring": "k"})
    granted = [statement for statement in _statements() if "Resource" in statement and "Principal" not in statement]
    for call in aws.calls:
        facts = {f"kms:EncryptionContext:{name}": text for name, text in call.body.get("EncryptionContext", {}).items()}
        assert any(
            f"kms:{call.operation}" in statement["Action"] and _holds(statement.get("Condition", {}), facts)
            for statement in granted
        ), call


@pytest.mark.parametrize(
    ("caller", "served"),
    [
        (Caller(worker="pay-1", groups=()), True),
        (Caller(worker="till-4", groups=("north", "cashiers")), True),
        (Caller(worker="pay-10", groups=("cashiers-2", "ex-cashiers")), False),
        (Caller(worker="cashiers", groups=("pay-1",)), False),
    ],
    ids=str,
)
def test_the_key_policy_serves_whom_it_names(caller: Caller, served: bool) -> None:
    """The tags that are sent meet the conditions of the key policy for the worker and the group that it names alone."""
    tags = session_tags(caller)
    facts = {
        "kms:EncryptionContext:app": "tokenbroker",
        "kms:EncryptionContext:keyring": "payments",
        **{f"aws:PrincipalTag/{name}": value for name, value in tags.items()},
    }
    granted = [statement for statement in _statements() if statement["Action"] == "kms:Decrypt"]
    assert any(_holds(statement["Condition"], facts) for statement in granted) is served
    trust = next(statement for statement in _statements() if "sts:TagSession" in statement["Action"])
    requested = {f"aws:RequestTag/{name}": value for name, value in tags.items()}
    assert _holds({"StringLike": trust["Condition"]["StringLike"]}, requested)
    assert set(trust["Condition"]["ForAllValues:StringEquals"]["aws:TagKeys"]) == set(tags)
