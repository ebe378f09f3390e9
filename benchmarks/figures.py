"""What a question is answered with, how answers are shown, and how one program answers its own question."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from broker.cli.logs import configure_logs


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One answer. name: short, and the same in every run, quick or not. goal: what it should be at most."""

    name: str
    question: str
    value: float
    unit: str
    goal: float | None
    detail: str

    @property
    def met(self) -> str:
        """Whether the goal is met, in a word."""
        return "" if self.goal is None else "met" if self.value <= self.goal else "missed"


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


def table(figures: list[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| question | value | goal | | detail |", "| --- | --- | --- | --- | --- |"]
    for figure in figures:
        goal = "" if figure.goal is None else f"<= {figure.goal:g}"
        lines.append(
            f"| {figure.question} | {figure.value:.2f} {figure.unit} | {goal} | {figure.met} | {figure.detail} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """The machine in a line, with how busy it is besides."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = names[0].partition(":")[2].strip() if names else platform.machine()
    parts = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "uvloop", "cryptography", "msgspec"))
    return f"{os.cpu_count()} x {model}, Python {platform.python_version()}, {parts}"


def alone(question: Question) -> None:
    """What `python -m benchmarks.NAME [--quick]` does: print a line for each figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    configure_logs(level="error", style="console")
    with tempfile.TemporaryDirectory() as folder:
        for figure in question(Path(folder), quick=quick):
            goal = "" if figure.goal is None else f"; goal <= {figure.goal:g}: {figure.met}"
            print(f"{figure.question}: {figure.value:.2f} {figure.unit} ({figure.detail}){goal}", flush=True)
