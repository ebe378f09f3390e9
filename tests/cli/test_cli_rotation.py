"""`rotation`: policies, runs and their ends on the command line, and what the doctor says of those that are stuck."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RANDOM = ("--rotator", "random", "--overlap", "0s")


def test_a_policy_is_set_shown_and_removed(house: Any) -> None:
    """What was set is shown as it was written, in windows and shares too, and gone when it is removed."""
    house.shell.ok("token", "put", "rot/a", stdin=b"first")
    options = ("--every", "30d", "--window", "mon-wed,sun 02:00-05:30", "--canary", "5%", "--then", "100%")
    made = house.shell.json("rotation", "set", "rot/a", *RANDOM, *options, "--setting", "length=64")
    assert made["windows"] == [{"days": [1, 2, 3, 7], "start_min": 120, "end_min": 330}]
    assert (made["every_s"], made["shares"], made["settings"]) == (30 * 86_400, [500, 10_000], {"length": "64"})
    assert made["state"]["step"] == "idle"
    shown = house.shell.ok("rotation", "show", "rot/a").out
    assert "mon,tue,wed,sun 02:00-05:30" in shown
    assert "5%, 100%" in shown
    assert house.shell.json("rotation", "show", "rot/a") == made
    assert "rot/a" in house.shell.ok("rotation", "list").out
    house.shell.ok("rotation", "remove", "rot/a")
    assert "no rotation policy" in house.shell.refused("rotation", "show", "rot/a")


def test_a_rotation_is_run_to_its_end(house: Any) -> None:
    """`run --wait` ends when the new value is in use and the former one is gone, and says so."""
    house.shell.ok("token", "put", "rot/b", stdin=b"first")
    house.shell.ok("rotation", "set", "rot/b", *RANDOM)
    ended = house.shell.json("rotation", "run", "rot/b", "--wait", "60s")
    assert (ended["state"]["last_outcome"], ended["state"]["last_version"]) == ("finished", 2)
    stages = {each["version"]: each["stage"] for each in house.shell.json("token", "versions", "rot/b")}
    assert stages == {1: "retired", 2: "current"}


def test_a_rotation_that_takes_longer_than_the_wait_is_no_success(house: Any) -> None:
    """The exit code is 1, and the last line says that it goes on, and how to follow it."""
    house.shell.ok("token", "put", "rot/slow", stdin=b"first")
    house.shell.ok("rotation", "set", "rot/slow", "--rotator", "random", "--overlap", "10m")
    ran = house.shell.run("rotation", "run", "rot/slow", "--wait", "1s")
    assert ran.code == 1
    assert "goes on" in ran.err.splitlines()[-1]
    assert "rotation show rot/slow" in ran.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--every", "10s"), "60 s to"),
        (("--cron", "0 3 30 2 *"), "day"),
        (("--cron", "whenever"), "five fields"),
        (("--every", "1d", "--cron", "0 3 * * *"), "one of them"),
        (("--setting", "lengh=4"), "lengh"),
        (("--deadline", "1m", "--overlap", "5m"), "deadline_s"),
        (("--credential", "admin=rot/a"), "admin"),
        (("--canary", "5%"), "100%"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(house: Any, options: tuple[str, ...], said: str) -> None:
    """The message names what is wrong, and nothing is on record."""
    assert said in house.shell.refused("rotation", "set", "rot/c", "--rotator", "random", *options)
    assert "no rotation policy" in house.shell.refused("rotation", "show", "rot/c")


def test_an_unknown_rotator_is_refused_with_those_there_are(house: Any) -> None:
    """Who mistypes a rotator is told the names."""
    assert "random" in house.shell.refused("rotation", "set", "rot/d", "--rotator", "randem")
    assert "random" in house.shell.json("rotation", "rotators")["rotators"]


@pytest.mark.parametrize("window", ["always", "mon 5:00-6:00", "foo 05:00-06:00", "mon 05:00"])
def test_a_window_is_written_in_one_way(house: Any, window: str) -> None:
    """Anything else is wrong usage, with an example."""
    ran = house.shell.run("rotation", "set", "rot/e", "--rotator", "random", "--window", window)
    assert ran.code == 2


def test_a_program_that_is_not_allowed_is_refused(house: Any) -> None:
    """Who administers tokens gets no program run by that."""
    said = house.shell.refused("rotation", "set", "rot/f", "--rotator", "command", "--setting", "program=/bin/sh")
    assert "rotation.commands" in said


def test_the_doctor_names_what_is_stuck(shell: Any, folder: Path, serve_in: Callable[..., Any], tmp_path: Path) -> None:
    """A rotation that fails is a warning with token, step and cause; `rotation list` shows the same."""
    program = tmp_path / "rotate"
    program.write_text("#!/bin/sh\nexit 77\n")
    program.chmod(0o700)
    config = folder / "broker.toml"
    config.write_text(f'{config.read_text()}\n[rotation]\ncommands = ["{program}"]\n')
    with serve_in(folder) as house:
        house.shell.ok("token", "put", "rot/stuck", stdin=b"first")
        house.shell.ok("rotation", "set", "rot/stuck", "--rotator", "command", "--setting", f"program={program}")
        house.shell.ok("rotation", "run", "rot/stuck")
        deadline = time.monotonic() + 30
        while "upstream_refused" not in house.shell.ok("rotation", "list").out:
            assert time.monotonic() < deadline
    findings = {each["check"]: each for each in shell.json("doctor", "--data-dir", folder)["checks"]}
    assert findings["rotations"]["state"] == "warning"
    assert "rot/stuck at the step create" in findings["rotations"]["said"]
    assert "exit code 77" in findings["rotations"]["said"]
