"""What a group of lease writes costs the SQLite adapter's thread: `python -m benchmarks.storage_writes`.

Compares one statement per row with one statement per batch, alone and beside a thread that never lets go of the
interpreter of its own accord, as a busy event loop does. Numbers are quoted in docs/decisions/0002-storage-port.md.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from storage.codec import Codec, Row
from storage.conformance.samples import at, lease
from storage.records import LeaseRecord
from storage.sqlite.connection import connect, create_file, use_wal
from storage.sqlite.migrations import migrate
from storage.sqlite.statements import Statements, batches, flat

ROWS = 32
LEASES = 40_000
TABLE = Statements(Codec(LeaseRecord))
CELLS = len(TABLE.codec.names)

Write = Callable[[sqlite3.Connection, Sequence[Row]], None]


def insert_each(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """One INSERT per row, through executemany."""
    connection.executemany(TABLE.insert(1, CELLS), rows)


def insert_batches(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """As the adapter does."""
    for start, size in batches(len(rows)):
        connection.execute(TABLE.insert(size, CELLS), flat(rows[start : start + size]))


def update_each(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """One UPDATE per row, through executemany."""
    assert connection.executemany(TABLE.update(TABLE.codec, 1), rows).rowcount == len(rows)


def update_batches(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """As the adapter does."""
    for start, size in batches(len(rows)):
        assert connection.execute(TABLE.update(TABLE.codec, size), flat(rows[start : start + size])).rowcount == size


def measure(connection: sqlite3.Connection, write: Write, groups: Sequence[Sequence[Row]]) -> tuple[float, ...]:
    """Microseconds per group: this thread's CPU in the statements and in COMMIT; wall time, median and longest."""
    inside = committing = 0.0
    walls = []
    for rows in groups:
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        start = time.thread_time()
        write(connection, rows)
        written = time.thread_time()
        connection.execute("COMMIT")
        committing += time.thread_time() - written
        inside += written - start
        walls.append(time.perf_counter() - began)
    return inside / len(groups) * 1e6, committing / len(groups) * 1e6, statistics.median(walls) * 1e6, max(walls) * 1e6


@contextmanager
def busy() -> Iterator[None]:
    """A thread that computes, beside."""
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            for _ in range(100):
                pass

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def table(connection: sqlite3.Connection, label: str, groups: int) -> None:
    """Print the four lines of one situation. Updates hit leases spread over the whole table, as renewals do."""
    for insert, update in ((insert_each, update_each), (insert_batches, update_batches)):
        (held,) = connection.execute("SELECT count(*) FROM lease").fetchone()
        fresh = [[TABLE.codec.to_row(lease(held + ROWS * g + n)) for n in range(ROWS)] for g in range(groups)]
        report(f"{insert.__name__.replace('_', ' ')}, {label}", measure(connection, insert, fresh))
        spread = held // ROWS
        keys = [[lease(g + spread * n) for n in range(ROWS)] for g in range(groups)]
        revs = dict(connection.execute("SELECT lease, rev FROM lease").fetchall())
        later = [
            [
                TABLE.codec.to_row(msgspec.structs.replace(record, rev=revs[record.lease] + 1, due_at=at(10**6)))
                for record in group
            ]
            for group in keys
        ]
        report(f"{update.__name__.replace('_', ' ')}, {label}", measure(connection, update, later))


def report(name: str, figures: tuple[float, ...]) -> None:
    """Print one line."""
    print(f"{name:42} {figures[0]:12.0f} {figures[1]:9.0f} {figures[2]:9.0f} {figures[3]:9.0f}", flush=True)


def main() -> None:
    """Print the table."""
    print(
        f"SQLite {sqlite3.sqlite_version}, {ROWS} leases a group, switch interval {sys.getswitchinterval() * 1e3:g} ms"
    )
    print(f"{'':42} {'statements':>12} {'COMMIT':>9} {'wall':>9} {'longest':>9}   (µs)")
    with tempfile.TemporaryDirectory() as folder:
        for cache, cache_kib in (("", 32_768), ("cold, ", 256)):
            path = Path(folder, f"{cache_kib}.db")
            create_file(path)
            with closing(connect(path, busy_timeout_s=2, cache_kib=cache_kib, writing=True)) as connection:
                migrate(connection, path)
                use_wal(connection, path)
                connection.execute("BEGIN")
                insert_batches(connection, [TABLE.codec.to_row(lease(number)) for number in range(LEASES)])
                connection.execute("COMMIT")
                table(connection, f"{cache}alone", 200)
                with busy():
                    table(connection, f"{cache}beside a busy thread", 20)


if __name__ == "__main__":
    main()
