"""What a checkpoint says, to the character."""

from __future__ import annotations

import pytest

from broker.audit.checkpoint import Checkpoint, Link, Origin, key_name
from broker.audit.errors import NoteBroken
from broker.errors import StartRefused

ROOT = bytes(32)
ROOT_TEXT = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
HEAD = Link(origin="cl/audit/one/2", size=7, root=ROOT)


def test_first_log_has_three_lines() -> None:
    """A log that continues none is origin, size and root."""
    checkpoint = Checkpoint(head=HEAD)
    assert checkpoint.text() == f"cl/audit/one/2\n7\n{ROOT_TEXT}\n"
    assert Checkpoint.parse(checkpoint.text()) == checkpoint


def test_later_log_names_the_one_before() -> None:
    """A log that continues another says which, how long it was, and its root."""
    checkpoint = Checkpoint(head=HEAD, previous=Link(origin="cl/audit/one/1", size=0, root=ROOT))
    assert checkpoint.text() == f"cl/audit/one/2\n7\n{ROOT_TEXT}\nprevious cl/audit/one/1 0 {ROOT_TEXT}\n"
    assert Checkpoint.parse(checkpoint.text()) == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"cl/audit/one/2\n7\n{ROOT_TEXT}",
        f"cl/audit/one/2\n7\n{ROOT_TEXT}\n\n",
        f"cl/audit/one/2\n07\n{ROOT_TEXT}\n",
        f"cl/audit/one/2\n-7\n{ROOT_TEXT}\n",
        f"cl/audit/one/2\n\u0667\n{ROOT_TEXT}\n",
        f"cl/audit/one/2\n{'9' * 20}\n{ROOT_TEXT}\n",
        f"cl/other/one/2\n7\n{ROOT_TEXT}\n",
        f"cl/audit/one/x\n7\n{ROOT_TEXT}\n",
        f"cl/audit/on e/2\n7\n{ROOT_TEXT}\n",
        "cl/audit/one/2\n7\nAAAA\n",
        f"cl/audit/one/2\n7\n{ROOT_TEXT}\nsomething else\n",
        f"cl/audit/one/2\n7\n{ROOT_TEXT}\nprevious cl/audit/one/1 1\n",
        f"cl/audit/one/2\n7\n{ROOT_TEXT}\n" + f"previous cl/audit/one/1 1 {ROOT_TEXT}\n" * 2,
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    """What is not exactly a checkpoint is none."""
    with pytest.raises(NoteBroken):
        Checkpoint.parse(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a/b", "-a", "a" * 129])
def test_unfit_names_do_not_start(name: str) -> None:
    """A cluster or instance name that an origin cannot hold refuses to start, and says what fits."""
    with pytest.raises(StartRefused, match="letters, digits"):
        key_name(name)
    with pytest.raises(StartRefused, match="letters, digits"):
        Origin(cluster="cl", instance=name, log=1).text()
