"""Answer every question and append the answers to benchmarks/RESULTS.md. `--quick`: about a minute, nothing written."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.key_cache import brown_out, cold_start
from benchmarks.measures import Figure, idle_session, lease_cost, opening, start_up
from benchmarks.replica_leases import replica_leases
from benchmarks.restart_storm import restart_storm
from broker.cli.logs import configure_logs

RESULTS = Path(__file__).with_name("RESULTS.md")


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    """Every figure of this run."""
    figures = lease_cost(folder, rounds=3 if quick else 7, requests=300 if quick else 1000)
    figures += idle_session(folder, connections=500 if quick else 2000)
    figures += opening()
    figures += replica_leases(folder, rounds=1 if quick else 7, requests=100 if quick else 400)
    figures += restart_storm(folder, workers=100 if quick else 5000, pause_max_s=2.0 if quick else 30.0)
    figures += cold_start(folder)
    figures += brown_out(folder, rounds=1 if quick else 7, requests=50 if quick else 300)
    return figures + start_up(folder, tokens=100_000, leases=100_000)


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
    """The machine in a line."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = names[0].partition(":")[2].strip() if names else platform.machine()
    parts = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "uvloop", "cryptography", "msgspec"))
    return f"{os.cpu_count()} x {model}, Python {platform.python_version()}, {parts}"


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    configure_logs(level="error", style="console")
    with tempfile.TemporaryDirectory() as folder:
        shown = table(measure(Path(folder), quick=quick))
    print(f"{machine()}\n\n{shown}")
    if not quick:
        now = datetime.now(UTC)  # noqa: TID251 - a date for people
        with RESULTS.open("a") as file:
            file.write(f"\n## {now:%Y-%m-%d %H:%M} UTC\n\n`make bench` on {machine()}\n\n{shown}\n")


if __name__ == "__main__":
    main()
