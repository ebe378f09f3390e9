"""`demo`: the whole story holds, tells itself, and leaves nothing behind, also when it is stopped in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "broker.cli.main", "demo"]


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}


def _processes_that_mention(text: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and text in (entry / "cmdline").read_text(errors="replace"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_the_story_holds(tmp_path: Path) -> None:
    """Exit code 0; every promise is kept, in a table; no temporary folder and no process is left."""
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=100, env=_environment(tmp_path), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = done.stdout.partition("The verdict")[2]
    assert verdict.count("yes") == 9
    assert "NO" not in verdict
    assert "has acknowledged version 3" in done.stdout
    assert "it is no key of this API" in done.stdout
    assert "contractor-1" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("moment", ["1. A broker", "3. Three workers"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_it_leaves_nothing(tmp_path: Path, moment: str, number: signal.Signals) -> None:
    """After Ctrl-C or SIGTERM its broker, workers and folder are gone, and the exit code is not 0."""
    process: Any = subprocess.Popen(
        COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**_environment(tmp_path), "PYTHONUNBUFFERED": "1"},
    )
    try:
        while moment not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    assert _processes_that_mention(str(tmp_path)) == []
