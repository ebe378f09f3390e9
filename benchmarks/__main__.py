"""Answer every question: `make bench` in some minutes, `make bench-quick` in less than one.

`python -m benchmarks [NAME...]` measures; `--record` appends the answers to benchmarks/RESULTS.md and draws
docs/charts. `--guard` measures quickly what is guarded, and fails where it got worse; `--baseline` measures the same,
and records it as what will be held to.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks import (
    audit_verify,
    client_cost,
    fan_out,
    feed_latency,
    idle_sessions,
    key_cache,
    latency,
    lease_cost,
    on_disk,
    peers,
    policy_size,
    replica_leases,
    restart_storm,
    sealing,
    start_up,
)
from benchmarks.charts import draw
from benchmarks.figures import Figure, Question, machine, table
from benchmarks.guard import guard, record
from broker.cli.logs import configure_logs

RESULTS = Path(__file__).with_name("RESULTS.md")
QUESTIONS: Final[dict[str, Question]] = {
    "sealing": sealing.figures,
    "policy_size": policy_size.figures,
    "audit_verify": audit_verify.figures,
    "client_cost": client_cost.figures,
    "lease_cost": lease_cost.figures,
    "fan_out": fan_out.figures,
    "latency": latency.figures,
    "idle_sessions": idle_sessions.figures,
    "key_cache": key_cache.figures,
    "start_up": start_up.figures,
    "on_disk": on_disk.figures,
    "replica_leases": replica_leases.figures,
    "feed_latency": feed_latency.figures,
    "restart_storm": restart_storm.figures,
    "peers": peers.figures,
}
ASIDE: Final = ("peers",)
"""Measured only where they are asked for by name."""
GUARDED: Final = ("sealing", "policy_size", "audit_verify", "client_cost", "lease_cost", "fan_out")
"""Questions whose answers are ratios of CPU times, and take seconds."""


def answer(name: str, *, quick: bool) -> list[Figure]:
    """The figures of one question, each printed as soon as it is there."""
    with tempfile.TemporaryDirectory() as folder:
        figures = QUESTIONS[name](Path(folder), quick=quick)
    for figure in figures:
        print(f"{figure.question}: {figure.value:.2f} {figure.unit} ({figure.detail}) {figure.met}", flush=True)
    return figures


def keep(figures: list[Figure], *, command: str, note: str) -> None:
    """Append to the results, and draw."""
    now = datetime.now(UTC)  # noqa: TID251 - a date for people
    with RESULTS.open("a") as file:
        file.write(f"\n## {now:%Y-%m-%d %H:%M} UTC\n\n`{command}` on {machine()}{note}\n\n{table(figures)}\n")
    draw(figures)


def main() -> None:
    """Measure, print, and do what was asked for besides."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(QUESTIONS)}; none: all but peers")
    parser.add_argument("--quick", action="store_true", help="with less of everything")
    parser.add_argument("--record", action="store_true", help="append to RESULTS.md, and draw the charts")
    parser.add_argument("--note", default="", help="what to say of the machine besides")
    parser.add_argument("--guard", action="store_true", help="fail where a ratio is worse than the recorded one")
    parser.add_argument("--baseline", action="store_true", help="record the ratios that --guard compares with")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(QUESTIONS):
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    configure_logs(level="error", style="console")
    quick = chosen.quick or chosen.guard or chosen.baseline
    all_names = GUARDED if chosen.guard or chosen.baseline else [name for name in QUESTIONS if name not in ASIDE]
    names = chosen.names or all_names
    print(f"{machine()}\n", flush=True)
    measured = {name: answer(name, quick=quick) for name in names}
    figures = [figure for each in measured.values() for figure in each]
    if chosen.record:
        keep(
            figures, command=" ".join(("python -m benchmarks", *chosen.names)), note=chosen.note and f", {chosen.note}"
        )
    if chosen.baseline:
        record(figures)
    if chosen.guard and (lines := guard(measured, lambda name: answer(name, quick=True))):
        print("\nworse than recorded by more than a third, twice:", *lines, sep="\n  ", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
