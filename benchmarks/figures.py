"""What a question is answered with, how a goal is judged, and how one program answers its own question."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import msgspec

from broker.cli.logs import configure_logs


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One answer. name: short, and the same in every run, quick or not.

    goal: what it should be at most, or with `at_least` at least. detail: the absolute numbers behind it.
    """

    name: str
    question: str
    value: float
    unit: str
    goal: float | None
    detail: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether there is no goal, or it is met."""
        return self.goal is None or (self.value >= self.goal if self.at_least else self.value <= self.goal)

    @property
    def wanted(self) -> str:
        """The goal as text; empty if there is none."""
        return "" if self.goal is None else f"{'>=' if self.at_least else '<='} {self.goal:g}"

    @property
    def verdict(self) -> str:
        """Whether the goal is met, or by how much of it it is missed; empty if there is none."""
        if self.goal is None or self.met:
            return "" if self.goal is None else "met"
        hundredths = abs(self.value / self.goal - 1) * 100
        return f"missed by {hundredths:.{0 if hundredths >= 1 else 1}f} %"


class Question(Protocol):
    """What a program of this folder has under the name `figures`."""

    def __call__(self, folder: Path, *, quick: bool) -> list[Figure]:
        """Measure, with files in `folder`. quick: in seconds rather than minutes, with less of everything."""
        ...


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of what the rounds, measured in turns, say one by one."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def in_turns(rounds: int, *calls: Callable[[], float]) -> list[list[float]]:
    """What each call gave, round by round: what disturbs the machine for a while disturbs all of them alike."""
    seen: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for values, call in zip(seen, calls, strict=True):
            values.append(call())
    return seen


def line(figure: Figure) -> str:
    """The figure for people who watch."""
    judged = figure.wanted and f"; goal {figure.wanted}: {figure.verdict}"
    return f"{figure.question}: {figure.value:.2f} {figure.unit} ({figure.detail}){judged}"


def machine() -> str:
    """The machine in a line, with how busy it is now."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = names[0].partition(":")[2].strip() if names else platform.machine()
    parts = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "uvloop", "cryptography", "msgspec"))
    load = " ".join(f"{each:.2f}" for each in os.getloadavg())
    return (
        f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, {parts}; load average at the start {load}"
    )


def alone(question: Question) -> None:
    """What `python -m benchmarks.NAME [--quick] [--figures FILE]` does: print a line for each figure.

    SIGTERM ends it as an error would, with everything that it started. FILE: gets the figures as JSON.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="with less of everything")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="write them there too, as JSON")
    chosen = parser.parse_args()
    configure_logs(level="error", style="console")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as folder:
        found = question(Path(folder), quick=chosen.quick)
    for figure in found:
        print(line(figure), flush=True)
    if chosen.figures is not None:
        chosen.figures.write_bytes(msgspec.json.encode(found))
