"""How long `tokenbroker migrate` takes and how much memory: `python -m benchmarks.migration postgresql://…/empty`.

The target is any empty database that the broker knows. Numbers are quoted in docs/howto/migrate-to-postgresql.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILL = [sys.executable, "-m", "benchmarks.cluster"]
MIGRATE = [sys.executable, "-m", "broker.cli.main", "migrate"]


def main() -> None:
    """Fill an SQLite file, move it with a process of its own, and print one line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.migration")
    parser.add_argument("target", help="URL of an empty database")
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--leases", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        sizes = ["--tokens", str(given.tokens), "--workers", "10", "--leases", str(given.leases)]
        subprocess.run([*FILL, str(folder), *sizes], check=True, stdout=subprocess.DEVNULL)
        source = f"sqlite:///{folder}/broker.db"
        began = time.perf_counter()
        process = subprocess.Popen(
            [*MIGRATE, "--from", source, "--to", given.target, "--data-dir", str(folder), "--json"],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        with process.stdout:
            answer = process.stdout.read()
        # Its own usage: what subprocess gives of children is the most of all of them.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        took = time.perf_counter() - began
    assert process.returncode == 0, "it says why"
    told = json.loads(answer)
    print(
        f"{told['records']} records, {told['opened']} values opened: {took:.1f} s, "
        f"{told['records'] / took:.0f} records/s, {usage.ru_maxrss / 1024:.0f} MiB at most"
    )


if __name__ == "__main__":
    main()
