"""Child processes that are measured: start one, wait for its `ready` line, read the CPU it has used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_READY_S = 60


class Child:
    """A running process and the address it said it listens on."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url
        self.pid = process.pid

    def cpu_s(self) -> float:
        """User and system seconds of all its threads so far, in steps of a clock tick."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def rss_bytes(self) -> int:
        """Resident memory now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def child(*arguments: str, environ: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Run `python -m ARGUMENTS`; its first line on standard output ends with its URL. Stopped by SIGTERM.

    environ: what its environment has besides ours.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True, env={**os.environ, **(environ or {})}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"{arguments[0]} ended before it was ready: exit {process.wait(_READY_S)}")
        yield Child(process, line.split()[-1])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(_READY_S)
        if process.stdout is not None:
            process.stdout.close()
