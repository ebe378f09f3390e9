"""Ask one question: its program is a process of its own, so that one that fails or hangs costs its own answer only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.figures import Figure

LIMIT_S: Final = 900.0
"""How long one question may take: several times the longest on two quiet cores, so that a busy machine answers too."""
ENDING_S: Final = 30.0
"""How long a program that was told to end has for ending what it started."""


class NotAnswered(Exception):
    """The program failed, or took longer than it may."""


def ask(name: str, *, quick: bool, limit_s: float = LIMIT_S) -> list[Figure]:
    """The figures of `python -m benchmarks.NAME`, which prints them itself. Files it leaves behind are removed.

    NotAnswered: it failed, and has said why, or it was not done within `limit_s`.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)  # where root measures, PostgreSQL runs as another user, and must reach its own folder
        answer = Path(folder) / "figures.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", "--figures", str(answer)]
        process = subprocess.Popen(
            [*command, "--quick"] if quick else command, env={**os.environ, "TMPDIR": folder}, process_group=0
        )
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise NotAnswered(f"not done within {limit_s:g} s") from None
        finally:
            _end(process)
        if status:
            raise NotAnswered(f"exit {status}")
        return msgspec.json.decode(answer.read_bytes(), type=list[Figure])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it end what it has started; then kill what is left of it."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDING_S)
    with suppress(ProcessLookupError):  # nothing is left of it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
