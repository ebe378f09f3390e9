"""Answer every question: `make bench` in some minutes, `make bench-quick` in less than one.

`python -m benchmarks [NAME...]` measures; `--record` appends the answers to benchmarks/RESULTS.md and draws
docs/charts. `--guard` measures quickly what is guarded, and fails where it got worse; `--baseline` measures the same,
and records it as what will be held to. A question that fails is told, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from benchmarks.asking import NotAnswered, ask
from benchmarks.charts import draw
from benchmarks.figures import Figure, machine
from benchmarks.guard import guard, record
from benchmarks.results import Run, append, commit

QUESTIONS: Final = (
    "sealing",
    "policy_size",
    "audit_verify",
    "client_cost",
    "lease_cost",
    "fan_out",
    "latency",
    "idle_sessions",
    "key_cache",
    "start_up",
    "on_disk",
    "replica_leases",
    "feed_latency",
    "resume_storm",
    "restart_storm",
)
"""Programs of this folder."""
PEERS: Final = ("peers", "cached_reads")
"""Likewise, with what users would pick instead; measured only where they are asked for by name."""
GUARDED: Final = ("sealing", "policy_size", "audit_verify", "client_cost", "lease_cost", "fan_out")
"""Questions whose answers are ratios of CPU times, and take seconds."""


def answer(names: Sequence[str], *, quick: bool, command: str) -> Run:
    """Ask one after the other, and say how long each took."""
    at, measured_commit, described = datetime.now(UTC), commit(), machine()  # noqa: TID251 - a date for people
    print(f"{described}\n", flush=True)
    measured: dict[str, list[Figure]] = {}
    failed: dict[str, str] = {}
    took_s: dict[str, float] = {}
    for name in names:
        began = time.perf_counter()
        try:
            measured[name] = ask(name, quick=quick)
        except NotAnswered as error:
            failed[name] = str(error)
        took_s[name] = time.perf_counter() - began
        print(f"-- {name}: {failed.get(name, 'done')}, {took_s[name]:.0f} s\n", flush=True)
    return Run(
        at=at,
        command=command,
        commit=measured_commit,
        machine=described,
        measured=measured,
        failed=failed,
        took_s=took_s,
    )


def main() -> None:
    """Measure, print, and do what was asked for besides."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    known = (*QUESTIONS, *PEERS)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; none: all but the last two")
    parser.add_argument("--quick", action="store_true", help="with less of everything")
    parser.add_argument(
        "--record", action="store_true", help="append to RESULTS.md, and draw the charts unless --quick"
    )
    parser.add_argument("--guard", action="store_true", help="fail where a ratio is worse than the recorded one")
    parser.add_argument("--baseline", action="store_true", help="record the ratios that --guard compares with")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(known):
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    quick = chosen.quick or chosen.guard or chosen.baseline
    names = chosen.names or (GUARDED if chosen.guard or chosen.baseline else QUESTIONS)
    run = answer(names, quick=quick, command=" ".join(("python -m benchmarks", *sys.argv[1:])))
    if chosen.record:
        append(run)
        if not quick:  # what charts say is about full size
            draw(run.figures)
    if chosen.baseline:
        record(run.figures)
    lines = guard(run.measured, lambda name: ask(name, quick=True)) if chosen.guard else []
    if lines:
        print("\nworse than recorded by more than a third, twice:", *lines, sep="\n  ", file=sys.stderr)
    if run.failed:
        print("\nnot answered:", *(f"{name}: {why}" for name, why in run.failed.items()), sep="\n  ", file=sys.stderr)
    if lines or run.failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
