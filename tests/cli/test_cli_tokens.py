"""`token`: values in, values out only by reveal, and the stages in between."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

EVERY_BYTE = bytes(range(256))


def test_put_answers_token_version_and_stage(house: Any) -> None:
    """The document has exactly these three fields, and each put is one version more."""
    first = house.shell.json("token", "put", "put/a", stdin=b"one")
    second = house.shell.json("token", "put", "put/a", "--stage", "pending", stdin=b"two")
    assert first == {"token": "put/a", "version": 1, "stage": "current"}
    assert second == {"token": "put/a", "version": 2, "stage": "pending"}


def test_a_value_comes_back_byte_for_byte(house: Any, tmp_path: Path) -> None:
    """From a file and out by reveal, every byte is as it was."""
    (tmp_path / "value").write_bytes(EVERY_BYTE)
    house.shell.ok("token", "put", "put/bytes", "--file", tmp_path / "value")
    assert house.shell.ok("token", "reveal", "put/bytes").raw == EVERY_BYTE


def test_a_value_comes_from_a_named_variable(house: Any) -> None:
    """--env reads the variable, and refuses one that is not set."""
    house.shell.with_environment(MY_VALUE="from-env").ok("token", "put", "put/env", "--env", "MY_VALUE")
    assert house.shell.ok("token", "reveal", "put/env").out == "from-env"
    assert "NOT_SET is not set" in house.shell.refused("token", "put", "put/env", "--env", "NOT_SET")


def test_a_final_line_end_is_kept_and_pointed_out(house: Any) -> None:
    """A value that ends with a line end is stored so, and a note says it."""
    ran = house.shell.ok("token", "put", "put/line", stdin=b"value\n")
    assert "line end" in ran.err
    assert house.shell.ok("token", "reveal", "put/line").raw == b"value\n"


@pytest.mark.parametrize(("value", "said"), [(b"", "empty"), (b"x" * 65_537, "longer than 65536")])
def test_a_value_out_of_bounds_is_refused(house: Any, value: bytes, said: str) -> None:
    """Nothing, and one byte more than 64 KiB, are refused with the bound."""
    assert said in house.shell.refused("token", "put", "put/bounds", stdin=value)


def test_values_of_64_kib_are_taken(house: Any, tmp_path: Path) -> None:
    """The largest value passes, even where each byte needs an escape in JSON."""
    (tmp_path / "value").write_bytes(b"\x01" * 65_536)
    house.shell.ok("token", "put", "put/large", "--file", tmp_path / "value")
    assert len(house.shell.ok("token", "reveal", "put/large").raw) == 65_536


def test_a_name_is_never_a_path(house: Any) -> None:
    """What is no token name is refused before it could lead anywhere else in the API."""
    assert "../workers" in house.shell.refused("token", "show", "../workers")
    assert "token name" in house.shell.refused("token", "delete", "a/-/versions/1")


def test_list_and_show_have_no_values(house: Any) -> None:
    """Neither the document nor the table of list, show and versions holds the value."""
    house.shell.ok("token", "put", "listed/a", "--label", "team=ci", stdin=b"canary-in-list")
    listed = house.shell.json("token", "list", "--prefix", "listed/")
    assert [(token["token"], token["current"], token["labels"]) for token in listed] == [
        ("listed/a", 1, {"team": "ci"})
    ]
    shown = house.shell.json("token", "show", "listed/a")
    versions = house.shell.json("token", "versions", "listed/a")
    assert [version["stage"] for version in versions] == ["current"]
    tables = "".join(
        house.shell.ok("token", *words).out
        for words in (("list", "--prefix", "listed/"), ("show", "listed/a"), ("versions", "listed/a"))
    )
    assert "listed/a" in tables
    assert "canary-in-list" not in tables + json.dumps([listed, shown, versions])


def test_stages_are_moved_by_hand(house: Any) -> None:
    """promote makes current, destroy erases, and a destroyed version cannot be revealed."""
    house.shell.ok("token", "put", "staged/a", stdin=b"one")
    house.shell.ok("token", "put", "staged/a", "--stage", "pending", stdin=b"two")
    assert house.shell.json("token", "promote", "staged/a", 2) == {
        "token": "staged/a",
        "version": 2,
        "stage": "current",
    }
    assert house.shell.ok("token", "reveal", "staged/a").out == "two"
    assert house.shell.json("token", "destroy", "staged/a", 1)["stage"] == "destroyed"
    assert "destroyed" in house.shell.refused("token", "reveal", "staged/a", "--version", 1)
    assert house.shell.refused("token", "destroy", "staged/a", 2)


def test_one_command_goes_back_and_one_takes_a_version_out(house: Any) -> None:
    """rollback names what is current now, and refuses the second time; retire takes a version that is not current."""
    house.shell.ok("token", "put", "staged/back", stdin=b"one")
    house.shell.ok("token", "put", "staged/back", stdin=b"two")
    assert house.shell.json("token", "rollback", "staged/back") == {
        "token": "staged/back",
        "version": 1,
        "stage": "current",
    }
    assert "promote 2" in house.shell.refused("token", "rollback", "staged/back")
    assert house.shell.ok("token", "reveal", "staged/back").out == "one"
    assert house.shell.json("token", "retire", "staged/back", 2)["stage"] == "retired"
    assert "is current" in house.shell.refused("token", "retire", "staged/back", 1)


def test_a_token_is_disabled_enabled_and_deleted(house: Any) -> None:
    """Each takes effect, and a deleted token is not found."""
    house.shell.ok("token", "put", "life/a", stdin=b"x")
    assert house.shell.json("token", "disable", "life/a")["disabled"] is True
    assert house.shell.json("token", "enable", "life/a")["disabled"] is False
    house.shell.ok("token", "delete", "life/a")
    assert "life/a" in house.shell.refused("token", "show", "life/a")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("a/b", "--batch", "f"),
        ("a/b", "--file", "f", "--env", "V"),
        ("--batch", "f", "--label", "a=b"),
        ("a/b", "--label", "nothing"),
        ("a/b", "--stage", "previous"),
        ("a/b", "--previous-valid", "soon"),
    ],
)
def test_contradictions_are_usage_errors(house: Any, arguments: tuple[str, ...]) -> None:
    """Options that do not fit together or cannot be read end with exit code 2, and nothing is sent."""
    assert house.shell.run("token", "put", *arguments, stdin=b"x").code == 2


def test_a_file_that_is_not_there_is_named(house: Any, tmp_path: Path) -> None:
    """One line names the file and the cause."""
    complaint = house.shell.refused("token", "put", "a/b", "--file", tmp_path / "none")
    assert str(tmp_path / "none") in complaint
    assert os.strerror(2) in complaint
