"""`tokenbroker issuer` and `tokenbroker issued`, typed at a broker that serves."""

from __future__ import annotations

from typing import Any

import pytest

ROLE = "role_arn=arn:aws:iam::123456789012:role/reports"


def put(house: Any, name: str, *more: str) -> Any:
    return house.shell.json("issuer", "set", name, "--issuer", "aws-sts", "--setting", ROLE, *more)


def test_a_token_gets_an_issuer_and_goes_with_it(house: Any) -> None:
    """set, list and show say the same; nothing is put into such a token; once disabled, it can be deleted."""
    made = put(house, "cli/aws", "--max-leases", "7", "--label", "team=ci")
    assert (made["token"], made["leases_max"], made["worker_leases_max"]) == ("cli/aws", 7, 10)
    assert made in house.shell.json("issuer", "list")
    assert house.shell.json("issuer", "show", "cli/aws") == made
    assert "aws-sts" in house.shell.ok("issuer", "issuers").out.split()
    assert "it has no versions" in house.shell.refused("token", "put", "cli/aws", stdin=b"value")
    assert house.shell.json("token", "show", "cli/aws")["kind"] == "issued"
    for command in (("reveal", "cli/aws"), ("rollout", "cli/aws", "--version", "1")):
        assert "it has no versions" in house.shell.refused("token", *command)
    assert put(house, "cli/aws", "--max-leases", "8")["leases_max"] == 8
    assert "disable" in house.shell.refused("token", "delete", "cli/aws")
    house.shell.ok("token", "disable", "cli/aws")
    house.shell.ok("token", "delete", "cli/aws")
    assert "cli/aws" not in [each["token"] for each in house.shell.json("issuer", "list")]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("--issuer", "nonsense"), "nonsense"),
        (("--issuer", "aws-sts"), "role_arn"),
        (("--issuer", "aws-sts", "--setting", ROLE, "--setting", "colour=red"), "colour"),
        (("--issuer", "aws-sts", "--setting", ROLE, "--credential", "access_key=no/such"), "no/such"),
        (("--issuer", "aws-sts", "--setting", ROLE, "--credential", "access_key=cli/wrong"), "itself made with"),
        (("--issuer", "aws-sts", "--setting", ROLE, "--keyring", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_is_named(house: Any, given: tuple[str, ...], named: str) -> None:
    """A wrong issuer, setting, credential or keyring is refused in one line, and nothing is made."""
    assert named in house.shell.refused("issuer", "set", "cli/wrong", *given)
    assert "cli/wrong" in house.shell.refused("token", "show", "cli/wrong")


def test_a_token_with_a_value_gets_no_issuer(house: Any) -> None:
    """Nor is the value lost by trying."""
    house.shell.ok("token", "put", "cli/stored", stdin=b"value")
    refused = house.shell.refused("issuer", "set", "cli/stored", "--issuer", "aws-sts", "--setting", ROLE)
    assert "values of its own" in refused


def test_what_was_not_made_cannot_be_forgotten(house: Any) -> None:
    """The list is empty, and says so; an unknown lease is named."""
    assert house.shell.json("issued", "list", "--token", "cli/none") == []
    assert "0f" * 16 in house.shell.refused("issued", "forget", "0f" * 16)
