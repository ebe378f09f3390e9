"""Child processes that are measured: start one, wait for its `ready` line, read the CPU it has used."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_READY_S = 60


class Child:
    """A running process and the address it said it listens on."""

    def __init__(self, pid: int, url: str) -> None:
        self.pid = pid
        self.url = url

    def cpu_s(self) -> float:
        """User and system seconds of all its threads so far, to the nanosecond."""
        return time.clock_gettime((~self.pid << 3) | 2)  # clock_getcpuclockid(3): the CPU clock of another process

    def rss_bytes(self) -> int:
        """Resident memory now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def reset_peak(self) -> None:
        """From now on `peak_bytes` is the most since now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_bytes(self) -> int:
        """The most resident memory since `reset_peak`, or since it started."""
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found is not None, "every process has one"
        return int(found[1]) * 1024


def serving(config: Path) -> tuple[str, ...]:
    """The command line of a measured broker."""
    return ("broker.cli.main", "serve", "--config", str(config), "--listen", "127.0.0.1:0")


def await_heads(broker: Child, count: int) -> None:
    """Return when the broker has read ahead every token's head: then each lease is a warm one."""
    for _ in range(600):
        with urllib.request.urlopen(f"{broker.url}/metrics", timeout=5) as answer:
            if f"tokenbroker_leases_heads {float(count)}" in answer.read().decode():
                return
        time.sleep(0.2)
    raise RuntimeError("the broker did not read its token heads ahead")


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
        yield Child(process.pid, line.split()[-1])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(_READY_S)
        if process.stdout is not None:
            process.stdout.close()
