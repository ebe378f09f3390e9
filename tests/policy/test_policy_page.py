"""The page about the policy, against the code it describes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.policy.decision import Refusal
from broker.policy.errors import PolicyRefused

PAGE = (Path(__file__).parents[2] / "docs" / "explain" / "policy.md").read_text(encoding="utf-8")


def leaves(error: type[PolicyRefused]) -> Iterator[type[PolicyRefused]]:
    below = error.__subclasses__()
    if not below:
        yield error
    for child in below:
        yield from leaves(child)


@pytest.mark.parametrize("error", list(leaves(PolicyRefused)))
def test_every_refusal_of_input_has_its_row(error: type[PolicyRefused]) -> None:
    """Each error that an operator can meet is in the table, with its limit."""
    assert f"| `{error.__name__}` | " in PAGE


@pytest.mark.parametrize("reason", list(Refusal))
def test_every_reason_of_a_decision_has_its_row(reason: Refusal) -> None:
    """Each reason that the audit log may hold is in the table."""
    assert f"| `{reason}` | " in PAGE
