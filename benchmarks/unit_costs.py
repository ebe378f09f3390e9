"""What one of each costs a replica and its PostgreSQL: `python -m benchmarks.unit_costs [--workers N]`.

A grant, a connect, an idle session, a renewal, a push, a release and a worker on record, each measured alone on a
broker in a process of its own: CPU of the broker, CPU of the database, WAL, bytes that stay in tables and indexes,
transactions. docs/explain/scale.md reckons with them. PostgreSQL is Debian's, as the tests start it, with its defaults.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import ssl
import subprocess
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.cluster import fill
from benchmarks.load import Socket, ask, connect
from benchmarks.loading import Shape, load
from benchmarks.process import Child, child, serving
from benchmarks.replica_leases import part
from broker.cli.logs import configure_logs

_URL = "TOKENBROKER_STORAGE__URL"
_TRUSTING = ssl.create_default_context()
_TRUSTING.check_hostname, _TRUSTING.verify_mode = False, ssl.CERT_NONE
_TICKS = os.sysconf("SC_CLK_TCK")
_TTL_S = 15
_WATCHED_S = 20.0
_PUSHES = 5
_ROUNDS = 3
_AT_ONCE = 32
_REGISTERED = 50_000
_CERTIFICATE = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
_SIZE = """SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'tokenbroker' AND relkind = 'r'"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Totals at one moment. of: what the broker counted, by kind of operation."""

    broker_s: float
    database_s: float
    wal: int
    size: int
    commits: int
    counted: dict[str, float]


class Bench:
    """A broker on a PostgreSQL server, and what both have used so far."""

    def __init__(self, broker: Child, server: Any, database: str) -> None:
        self.broker = broker
        self._server = server
        self._database = database

    def read(self) -> Reading:
        """Totals now."""
        sql = f"""SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0'), ({_SIZE}), xact_commit
        FROM pg_stat_database WHERE datname = current_database()"""
        wal, size, commits = self._server.sql(self._database, sql).split("|")
        with urllib.request.urlopen(f"{self.broker.url}/metrics", timeout=5, context=_TRUSTING) as answer:
            text = answer.read().decode()
        counted = {
            sample.labels.get("kind", sample.name): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name in {"tokenbroker_leases_done_total", "tokenbroker_leases_batches_total"}
            or sample.name == "tokenbroker_audit_entries_total"
        }
        return Reading(
            broker_s=self.broker.cpu_s(),
            database_s=_tree_s(int((self._server.folder / "data" / "postmaster.pid").read_text().split()[0])),
            wal=int(wal),
            size=int(size),
            commits=int(commits),
            counted=counted,
        )

    @contextlib.contextmanager
    def of(self, what: str, *, count: int = 0, kind: str = "") -> Iterator[None]:
        """Measure the body, and print what each of `count` cost, or of those operations that the broker counted."""
        before = self.read()
        yield
        after = self.read()
        done = count or int(after.counted.get(kind, 0) - before.counted.get(kind, 0))
        batches = after.counted["tokenbroker_leases_batches_total"] - before.counted["tokenbroker_leases_batches_total"]
        entries = after.counted["tokenbroker_audit_entries_total"] - before.counted["tokenbroker_audit_entries_total"]
        print(
            f"{what:34} x {done:6}  broker {(after.broker_s - before.broker_s) / done * 1e6:7.1f} us"
            f"  database {(after.database_s - before.database_s) / done * 1e6:7.1f} us"
            f"  WAL {(after.wal - before.wal) / done:7.0f} B  kept {(after.size - before.size) / done:7.0f} B"
            f"  commits {(after.commits - before.commits) / done:6.3f}  batch {done / max(batches, 1):6.1f}"
            f"  entries {entries / done:5.2f}",
            flush=True,
        )


def _tree_s(first: int) -> float:
    """CPU seconds of a process, of children that it has, and of those that it had."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(stat.parent.name) == first:
                total += sum(int(field) for field in fields[11:15])
            elif int(fields[1]) == first:
                total += int(fields[11]) + int(fields[12])
    return total / _TICKS


async def each(calls: list[Any]) -> list[Any]:
    """Run them, some at once."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(call: Any) -> Any:
        async with places:
            return await call

    return await asyncio.gather(*(one(call) for call in calls))


async def answered(socket: Socket, kind: str, **frame: Any) -> dict[str, Any]:
    """The answer to one request, if it is of this kind."""
    answer = await ask(socket, frame)
    if answer["type"] != kind:
        raise SystemExit(f"not {kind}: {answer}")
    return answer


async def listen(sockets: list[Socket]) -> None:
    """Do nothing for a while but answer heartbeats, which is done while a frame is awaited."""

    async def one(socket: Socket) -> None:
        while True:
            await socket.receive()

    waiting = [asyncio.ensure_future(one(socket)) for socket in sockets]  # noqa: TID251
    await asyncio.sleep(_WATCHED_S)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def told(socket: Socket) -> None:
    """Wait for a rotation and acknowledge it, past anything else."""
    while True:
        frame = await socket.receive_json()
        if frame["type"] == "rotated":
            done = {"type": "ack", "lease": frame["lease"], "status": "applied", "version": frame["version"]}
            return await socket.send_json(done)


async def sessions(bench: Bench, credential: str, workers: int) -> None:
    """Connects, idle sessions, renewals and pushes of so many workers."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout()) as http:
        url, rss = bench.broker.url, bench.broker.rss_bytes()
        with bench.of(f"nobody connected, {_WATCHED_S:.0f} s", count=1):
            await asyncio.sleep(_WATCHED_S)
        with bench.of("connect, plaintext", count=workers):
            sockets = await each([connect(http, "lease", url, number) for number in range(workers)])
            await asyncio.sleep(1)  # so that what is written behind the welcome is counted
        print(f"{'memory of a session':34} {(bench.broker.rss_bytes() - rss) / workers / 1024:.1f} KiB")
        with bench.of(f"idle session, {_WATCHED_S:.0f} s", count=workers):
            await listen(sockets)
        with bench.of("grant, one in flight each", count=workers):
            lease = {"type": "lease", "token": "bench/t0", "ttl_s": _TTL_S}
            granted = await each([answered(socket, "granted", **lease) for socket in sockets])
        with bench.of(f"renewal, within {_WATCHED_S:.0f} s", kind="renewal"):
            await listen(sockets)
        seconds = []
        with bench.of("push of a rotation, with its ack", count=workers * _PUSHES):
            for number in range(_PUSHES):
                waiting = [asyncio.ensure_future(told(socket)) for socket in sockets]  # noqa: TID251
                began = time.perf_counter()
                body = {"items": [{"token": "bench/t0", "value": f"value-{number}"}]}
                headers = {"Authorization": f"Bearer {credential}"}
                async with http.post(f"{url}/v1/tokens", json=body, headers=headers) as answer:
                    answer.raise_for_status()
                await asyncio.gather(*waiting)
                seconds.append(time.perf_counter() - began)
            await asyncio.sleep(1)
        print(f"{'all workers told within':34} {', '.join(f'{each * 1000:.0f} ms' for each in seconds)}")
        with bench.of("release, one in flight each", count=workers):
            leases = zip(sockets, granted, strict=True)
            await each([answered(socket, "released", type="release", leases=[one["lease"]]) for socket, one in leases])
        await asyncio.gather(*(socket.close() for socket in sockets))


async def over_tls(bench: Bench, workers: int) -> None:
    """Connects over TLS, and what their sessions take."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        rss = bench.broker.rss_bytes()
        with bench.of("connect, TLS 1.3 with P-256", count=workers):
            sockets = await each([connect(http, "lease", bench.broker.url, number) for number in range(workers)])
            await asyncio.sleep(1)
        print(f"{'memory of a session over TLS':34} {(bench.broker.rss_bytes() - rss) / workers / 1024:.1f} KiB")
        await asyncio.gather(*(socket.close() for socket in sockets))


def on_record(folder: Path) -> None:
    """What a worker costs a replica that is registered and not connected, on SQLite."""
    seen = {}
    for count in (1_000, 1_000 + _REGISTERED):
        config = asyncio.run(fill(folder / f"w{count}", tokens=10, workers=count))
        with child(*serving(config)) as broker:
            seen[count] = (broker.rss_bytes(), broker.cpu_s())
    memory, spent = (many - few for few, many in zip(*seen.values(), strict=True))
    print(f"{'worker on record':34} {memory / _REGISTERED:.0f} B, {spent / _REGISTERED * 1e6:.0f} us at each start")


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unit_costs")
    parser.add_argument("--workers", type=int, default=2000)
    workers = parser.parse_args().workers
    configure_logs(level="error", style="console")
    shape = Shape(requests=400, tokens=1000)
    with tempfile.TemporaryDirectory() as folder, part("postgres").serving() as server, ExitStack() as stack:
        database = server.create()
        os.environ[_URL] = server.url(database)
        config = asyncio.run(fill(Path(folder, "data"), tokens=shape.tokens, workers=workers))
        credential = tomllib.loads((config.parent / "profile.toml").read_text())["credential"]
        bench = Bench(stack.enter_context(child(*serving(config))), server, database)
        for number in range(_ROUNDS):
            what = f"grant, 32 x 8 in flight, round {number}"
            with (
                load("lease", bench.broker, shape, offset=number * shape.requests) as running,
                bench.of(what, count=shape.total),
            ):
                running.round()
        for name in ("lease", "audit_block"):
            size = int(server.sql(database, f"SELECT pg_total_relation_size('tokenbroker.{name}')"))
            print(f"{f'of what is kept, in {name}':34} {size / shape.total / _ROUNDS:.0f} B a grant")
        uvloop.run(sessions(bench, credential, workers))
        names = {"tls_cert": f"{folder}/tls.pem", "tls_key": f"{folder}/tls.key", "instance": "over-tls"}
        openssl = [*_CERTIFICATE.split(), "-out", names["tls_cert"], "-keyout", names["tls_key"]]
        subprocess.run(openssl, check=True, capture_output=True)
        os.environ |= {f"TOKENBROKER_SERVER__{name.upper()}": value for name, value in names.items()}
        uvloop.run(over_tls(Bench(stack.enter_context(child(*serving(config))), server, database), workers))
        del os.environ[_URL]
        on_record(Path(folder))


if __name__ == "__main__":
    main()
