"""Hold what is stable to what it was: ratios of CPU times, measured in turns, against benchmarks/baseline.json.

A ratio that is worse by more than a third is measured once more, by itself, and counts only if it is so again. What
depends on waiting (times, latencies, disks) is not here: on a busy machine it says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.figures import Figure

BASELINE = Path(__file__).with_name("baseline.json")
WORSE = 4 / 3


def worse(figures: list[Figure], baseline: Mapping[str, float]) -> list[Figure]:
    """Those that are worse by more than a third. KeyError: one has no baseline."""
    return [figure for figure in figures if figure.value > WORSE * baseline[figure.name]]


def guard(measured: Mapping[str, list[Figure]], again: Callable[[str], list[Figure]]) -> list[str]:
    """A line for each ratio that was worse twice. measured: by question. again: measures a question once more."""
    baseline: dict[str, float] = json.loads(BASELINE.read_text())
    lines = []
    for question, figures in measured.items():
        guarded = [figure for figure in figures if figure.name in baseline]
        first = {figure.name for figure in worse(guarded, baseline)}
        if not first:
            continue
        second = [figure for figure in again(question) if figure.name in first]
        lines += [
            f"{figure.name}: {figure.value:.2f} {figure.unit}, recorded {baseline[figure.name]:.2f}; {figure.detail}"
            for figure in worse(second, baseline)
        ]
    return lines


def record(figures: list[Figure]) -> None:
    """Make these the baseline, of what is guarded already."""
    known: dict[str, float] = json.loads(BASELINE.read_text())
    now = {figure.name: round(figure.value, 2) for figure in figures if figure.name in known}
    BASELINE.write_text(json.dumps({**known, **now}, indent=2, sort_keys=True) + "\n")
