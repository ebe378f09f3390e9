"""`token put --batch`: a result for each line, and one bad line never fails the rest."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tokenbroker_client.wire import b64


def _lines(*items: object) -> bytes:
    return b"".join((item if isinstance(item, bytes) else json.dumps(item).encode()) + b"\n" for item in items)


def test_each_line_gets_its_result(house: Any, tmp_path: Path) -> None:
    """Good lines are stored, bad ones say why, in the order of the file; exit code 1 says that there were bad ones."""
    path = tmp_path / "batch.jsonl"
    path.write_bytes(
        _lines(
            {"token": "batch/a", "value": "one", "labels": {"k": "v"}, "content_type": "text/x"},
            b"not json",
            {"token": "NOT A NAME", "value": "x"},
            {"token": "batch/b", "value_b64": b64(bytes(range(256)))},
            {"token": "batch/c"},
            {"token": "batch/d", "value": ""},
            {"token": "batch/e", "value": "x", "unknown": 1},
            b"",
            {"token": "batch/f", "value": "last"},
        )
    )
    ran = house.shell.run("token", "put", "--batch", path, "--json")
    results = ran.document
    assert ran.code == 1
    assert [(result["line"], result.get("version")) for result in results] == [
        (1, 1),
        (2, None),
        (3, None),
        (4, 1),
        (5, None),
        (6, None),
        (7, None),
        (9, 1),
    ]
    assert all(result["code"] and result["detail"] for result in results if "version" not in result)
    assert house.shell.ok("token", "reveal", "batch/b").raw == bytes(range(256))
    assert house.shell.json("token", "show", "batch/a")["labels"] == {"k": "v"}


def test_lines_of_one_token_are_stored_in_their_order(house: Any) -> None:
    """A token that comes many times, across several requests, ends with its last line as the current version."""
    items = [{"token": f"order/t{number % 7}", "value": str(number)} for number in range(1500)]
    ran = house.shell.ok("token", "put", "--batch", "-", stdin=_lines(*items))
    assert ran.out.count("is current") == 1500
    assert [house.shell.ok("token", "reveal", f"order/t{number}").out for number in (0, 6)] == ["1498", "1497"]


def test_a_value_in_a_refused_line_is_not_repeated(house: Any) -> None:
    """Neither output quotes what stood in a line that could not be read or stored."""
    canary = "canary-5b0f"
    ran = house.shell.run(
        "token",
        "put",
        "--batch",
        "-",
        stdin=_lines({"token": "Bad Name", "value": canary}, f'{{"token": "a/b", "value": "{canary}'.encode()),
    )
    assert ran.code == 1
    assert ran.out.count("FAILED") == 2
    assert canary not in ran.out + ran.err


def test_a_line_without_end_is_refused_and_the_next_one_taken(house: Any) -> None:
    """A line over the bound is skipped to its end, without being held in memory."""
    huge = b'{"token": "huge/a", "value": "' + b"x" * 2_000_000 + b'"}'
    ran = house.shell.run("token", "put", "--batch", "-", stdin=_lines(huge, {"token": "huge/b", "value": "small"}))
    assert "line 1: ? FAILED (bad_request)" in ran.out
    assert "line 2: huge/b version 1 is current" in ran.out


@pytest.mark.skipif(sys.platform != "linux", reason="needs a pseudo-terminal")
def test_a_progress_bar_on_the_terminal_swallows_no_result(house: Any, tmp_path: Path) -> None:
    """With standard error on a terminal and standard output in a file, the bar goes there and the results here."""
    batch = tmp_path / "batch.jsonl"
    batch.write_bytes(_lines(*({"token": f"bar/t{number}", "value": "x"} for number in range(3))))
    ours, theirs = pty.openpty()
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "broker.cli.main", "token", "put", "--batch", str(batch)],
            stdout=out,
            stderr=theirs,
            env={**house.shell.environment, "TERM": "xterm"},
            timeout=60,
            check=False,
        )
    os.close(theirs)
    bar = os.read(ours, 65_536).decode(errors="replace")
    os.close(ours)
    assert done.returncode == 0
    assert "3/3" in bar
    assert (tmp_path / "out").read_text().count("is current") == 3


def test_without_a_credential_no_line_is_tried(house: Any) -> None:
    """A credential that the broker does not know ends the command with one line."""
    stranger = house.shell.with_environment(TOKENBROKER_ADMIN_TOKEN="tba_" + "A" * 43)
    ran = stranger.run("token", "put", "--batch", "-", stdin=_lines({"token": "a/b", "value": "x"}))
    assert (ran.code, ran.out) == (1, "")
    assert "credential" in ran.complaint
