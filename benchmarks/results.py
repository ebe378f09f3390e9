"""What a run of the bench leaves: a section of benchmarks/RESULTS.md, complete in itself."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.figures import Figure

RESULTS = Path(__file__).with_name("RESULTS.md")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run. measured: figures by question. failed: why, by question. took_s: seconds, by question."""

    at: datetime
    command: str
    commit: str
    machine: str
    measured: Mapping[str, Sequence[Figure]]
    failed: Mapping[str, str]
    took_s: Mapping[str, float]

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the questions."""
        return [figure for each in self.measured.values() for figure in each]


def section(run: Run) -> str:
    """The run as Markdown: what, where, each answer beside its goal, what was not answered, how long it took."""
    judged = [figure for figure in run.figures if figure.goal is not None]
    missed = [f"{figure.name} ({figure.verdict})" for figure in judged if not figure.met]
    goals = f"{len(judged) - len(missed)} of {len(judged)} goals met" + (f"; {', '.join(missed)}" if missed else "")
    took = ", ".join(f"{name} {seconds:.0f}" for name, seconds in run.took_s.items())
    parts = [
        f"## {run.at:%Y-%m-%d %H:%M} UTC",
        _wrapped(f"`{run.command}` at commit {run.commit} on {run.machine}."),
        _wrapped(f"{goals}."),
    ]
    if run.figures:
        parts.append(table(run.figures))
    if run.failed:
        parts.append(_wrapped(f"Not answered: {', '.join(f'{name} ({why})' for name, why in run.failed.items())}."))
    parts.append(_wrapped(f"Seconds that each question took: {took}; {sum(run.took_s.values()):.0f} in all."))
    return "\n\n".join(parts) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| question | value | goal | | detail |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {each.question} | {each.value:.2f} {each.unit} | {each.wanted} | {each.verdict} | {each.detail} |"
        for each in figures
    ]
    return "\n".join(lines)


def append(run: Run) -> None:
    """Add the section behind all others."""
    with RESULTS.open("a") as file:
        file.write(f"\n{section(run)}")


_WRITTEN = (":(top,exclude)benchmarks/RESULTS.md", ":(top,exclude)docs/charts")


def commit() -> str:
    """The commit that is measured, and whether files differ from it, other than those that a record changes."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", *_WRITTEN)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}, with changes that are not in it" if changed else name


def _git(*arguments: str) -> str:
    command = ("git", "-C", str(RESULTS.parent), *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
