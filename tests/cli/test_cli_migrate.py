"""`migrate`, `backup` and `restore` across databases: a cluster goes to PostgreSQL and back, whole or not at all."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tokenbroker_client import WorkerKey, connect

TOLD_S = 30


@pytest.fixture
def empty(postgres: Any) -> str:
    """The URL of an empty PostgreSQL database."""
    url: str = postgres.url(postgres.create())
    return url


def _sqlite(folder: Path) -> str:
    return f"sqlite:///{folder}/broker.db"


def _point(folder: Path, url: str) -> None:
    """Name another database in the configuration."""
    lines = (folder / "broker.toml").read_text().splitlines()
    (folder / "broker.toml").write_text(
        "".join(f'url = "{url}"\n' if line.startswith("url = ") else f"{line}\n" for line in lines)
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_cluster_moves_to_postgresql(shell: Any, serve_in: Any, folder: Path, postgres: Any) -> None:
    """Stop, migrate, change one line, start: every token opens, the log verifies, a worker goes on with its lease."""
    name = await _run(postgres.create)
    await _run(postgres.give_roles, name)
    migrator, served = (postgres.url(name, user=f"tokenbroker_{role}") for role in ("migrator", "broker"))
    listen = ("--listen", f"127.0.0.1:{_free_port()}")
    async with _Serving(serve_in) as serving:
        standing = await serving.start(folder, *listen)
        key = WorkerKey.generate(worker="w-1")
        await _sealed(standing.shell, key)
        async with connect(standing.url, key=key) as broker, broker.lease("app/1") as lease:
            assert lease.value == "two"
            changed = asyncio.Event()
            lease.on_change(lambda _: changed.set())
            (before,) = await _run(standing.shell.json, "lease", "list", "--worker", "w-1")
            await serving.stop()
            told = await _run(
                shell.json, "migrate", "--from", _sqlite(folder), "--to", migrator, "--config", folder / "broker.toml"
            )
            assert (told["ok"], told["verified"], told["problems"], told["notes"]) == (True, True, [], [])
            assert (told["tables"]["token"], told["tables"]["version"], told["opened"]) == (20, 22, 22)
            assert told["records"] == sum(told["tables"].values())
            assert told["audit_entries"] > 30
            _point(folder, served)
            (folder / "broker.db").unlink()
            standing = await serving.start(folder, *listen)
            assert await _run(_values, standing.shell) == ["two", *(f"value {n}" for n in range(2, 21))]
            assert (await _run(standing.shell.json, "audit", "verify", "--live"))["ok"] is True
            await _run(standing.shell.ok, "token", "put", "app/1", stdin=b"three")
            async with asyncio.timeout(TOLD_S):
                while lease.value != "three":
                    await changed.wait()
                    changed.clear()
            (after,) = await _run(standing.shell.json, "lease", "list", "--worker", "w-1")
            assert after["lease"] == before["lease"], "the lease of before was resumed"
        doctor = await _run(shell.json, "doctor", "--data-dir", folder)
        assert doctor["ok"] is True


async def _sealed(shell: Any, key: WorkerKey) -> None:
    """Twenty tokens, the first of them rotated twice, and a worker that may have it."""
    for n in range(1, 21):
        await _run(lambda n=n: shell.ok("token", "put", f"app/{n}", stdin=f"value {n}".encode()))
    for value in (b"one", b"two"):
        await _run(lambda value=value: shell.ok("token", "put", "app/1", stdin=value))
    await _run(shell.ok, "worker", "register", "w-1", "--public-key", key.public_key_b64)
    await _run(shell.ok, "grant", "add", "worker:w-1", "app/*")


def _values(shell: Any) -> list[str]:
    return [shell.ok("token", "reveal", f"app/{n}").out for n in range(1, 21)]


async def _run(function: Any, *arguments: Any, **named: Any) -> Any:
    return await asyncio.to_thread(lambda: function(*arguments, **named))


class _Serving:
    """Starts and stops brokers without holding up the loop, on which a worker lives."""

    def __init__(self, serve_in: Any) -> None:
        self._serve_in = serve_in
        self._stack = ExitStack()

    async def start(self, folder: Path, *options: str) -> Any:
        return await _run(self._stack.enter_context, self._serve_in(folder, *options))

    async def stop(self) -> None:
        await _run(self._stack.close)

    async def __aenter__(self) -> _Serving:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def test_a_backup_of_postgresql_goes_anywhere(
    *, shell: Any, serve_in: Any, folder: Path, empty: str, postgres: Any, tmp_path: Path
) -> None:
    """Taken while PostgreSQL serves, restored into a file and into another PostgreSQL; both serve, and both verify."""
    shell.ok("migrate", "--from", _sqlite(folder), "--to", empty, "--data-dir", folder)
    _point(folder, empty)
    copy = tmp_path / "copy"
    with serve_in(folder) as standing:
        standing.shell.ok("token", "put", "kept/a", stdin=b"kept")
        told = standing.shell.json("backup", "--out", copy)
        standing.shell.ok("token", "put", "kept/b", stdin=b"later")
    assert told == {"backup": str(copy), "bytes": copy.stat().st_size}
    other = postgres.url(postgres.create())
    file = f"sqlite:///{tmp_path}/restored.db"
    assert shell.json("restore", copy, "--data-dir", folder, "--to", file)["restored"] == f"{tmp_path}/restored.db"
    restored = shell.json("restore", copy, "--data-dir", folder, "--to", other)
    assert restored["problems"] == []
    assert restored["records"] > 20
    for url in (file, other):
        _point(folder, url)
        with serve_in(folder) as standing:
            assert standing.shell.ok("token", "reveal", "kept/a").out == "kept"
            assert "kept/b" in standing.shell.refused("token", "show", "kept/b")
            standing.shell.ok("token", "put", "kept/c", stdin=b"new")
            assert standing.shell.json("audit", "verify", "--live")["ok"] is True
    assert "holds records already" in shell.refused("restore", copy, "--data-dir", folder, "--to", other)
    assert "holds records already" in shell.refused("restore", copy, "--data-dir", folder)


def test_half_a_migration_is_not_served(shell: Any, serve_in: Any, folder: Path, empty: str, tmp_path: Path) -> None:
    """Where the proof failed every command refuses the target; with a mended source, started over, it is served."""
    kept = tmp_path / "kept.db"
    with serve_in(folder) as standing:
        standing.shell.ok("token", "put", "a/b", stdin=b"value")
        standing.shell.ok("grant", "add", "group:all", "a/*")
    shutil.copy(folder / "broker.db", kept)
    with closing(sqlite3.connect(folder / "broker.db", isolation_level=None)) as database:
        database.execute("UPDATE grant_ SET pattern = '**'")
    arguments = ("--from", _sqlite(folder), "--to", empty, "--data-dir", folder)
    ran = shell.run("migrate", *arguments, "--json")
    assert (ran.code, ran.document["ok"]) == (3, False)
    assert any("grant_" in problem and "MAC" in problem for problem in ran.document["problems"])
    assert "is not served" in ran.err
    before = (folder / "broker.toml").read_text()
    _point(folder, empty)
    assert "has not finished" in shell.refused("serve", "--data-dir", folder)
    assert "has not finished" in shell.refused("init", "--data-dir", folder)
    doctor = shell.run("doctor", "--data-dir", folder)
    assert doctor.code == 1
    assert "has not finished" in doctor.out
    (folder / "broker.toml").write_text(before)
    shutil.copy(kept, folder / "broker.db")
    assert shell.json("migrate", *arguments, "--start-over")["ok"] is True
    _point(folder, empty)
    with serve_in(folder) as standing:
        assert standing.shell.ok("token", "reveal", "a/b").out == "value"


def test_a_value_that_does_not_open_is_found(shell: Any, serve_in: Any, folder: Path, empty: str) -> None:
    """Sealed bytes that were changed: the row's MAC tells, exit code 3."""
    with serve_in(folder) as standing:
        standing.shell.ok("token", "put", "a/b", stdin=b"value")
    with closing(sqlite3.connect(folder / "broker.db", isolation_level=None)) as database:
        database.execute("UPDATE version SET sealed = zeroblob(length(sealed))")
    ran = shell.run("migrate", "--from", _sqlite(folder), "--to", empty, "--data-dir", folder, "--json")
    assert ran.code == 3
    assert any("does not open" in problem for problem in ran.document["problems"])


def test_a_loss_that_was_accepted_is_no_fault_of_the_copy(shell: Any, serve_in: Any, folder: Path, empty: str) -> None:
    """A cluster with a hole in its audit log, which an operator has accepted, moves all the same; the hole is told."""
    with serve_in(folder) as standing:
        standing.shell.ok("token", "put", "a/b", stdin=b"value")
    with closing(sqlite3.connect(folder / "broker.db", isolation_level=None)) as database:
        database.execute(
            "DELETE FROM audit_block WHERE log = 2 AND seq = (SELECT max(seq) FROM audit_block WHERE log = 2)"
        )
    arguments = ("migrate", "--from", _sqlite(folder), "--to", empty, "--data-dir", folder, "--json")
    with serve_in(folder, "--accept-audit-loss"):
        pass
    ran = shell.ok(*arguments)
    assert ran.document["ok"] is True
    assert any("log 2" in text for text in ran.document["notes"]), ran.document
    assert "was not in order before" in ran.err
    _point(folder, empty)
    with serve_in(folder) as standing:
        assert standing.shell.ok("token", "reveal", "a/b").out == "value"


def test_what_must_not_be_migrated(
    *, shell: Any, house: Any, folder: Path, empty: str, initialise_in: Any, tmp_path: Path
) -> None:
    """Served, absent, no cluster, the same, another cluster, onto a cluster: one sentence each, and nothing is done."""
    here, back = _sqlite(folder), f"sqlite:///{tmp_path}/back.db"
    move = ("migrate", "--data-dir", folder)
    served = ("--from", _sqlite(house.folder), "--to", empty)
    assert "in use by process" in shell.refused("migrate", *served, "--data-dir", house.folder)
    assert "there is no database" in shell.refused(*move, "--from", f"sqlite:///{tmp_path}/none.db", "--to", empty)
    assert not (tmp_path / "none.db").exists()
    assert "same database" in shell.refused(*move, "--from", here, "--to", f"sqlite:///{folder}/../data/broker.db")
    assert "holds no cluster" in shell.refused(*move, "--from", empty, "--to", back)
    initialise_in(tmp_path / "other")
    other = _sqlite(tmp_path / "other")
    assert "root key" in shell.refused(*move, "--from", other, "--to", back)
    assert "holds records already" in shell.refused(*move, "--from", here, "--to", other)
    assert "no storage adapter" in shell.refused(*move, "--from", here, "--to", "mysql://host/db")
    assert not (tmp_path / "back.db").exists()
    assert shell.run("migrate", "--from", here).code == 2
    assert shell.run(*move, "--config", folder / "broker.toml", "--from", here, "--to", back).code == 2


def test_without_a_configuration_it_says_what_was_not_looked_at(
    shell: Any, folder: Path, empty: str, postgres: Any
) -> None:
    """Every record is compared; that no MAC, signature and value was looked at is said. No password is printed."""
    ran = shell.ok("migrate", "--from", _sqlite(folder), "--to", empty, "--json")
    assert (ran.document["ok"], ran.document["verified"], ran.document["opened"]) == (True, False, None)
    assert "NOT VERIFIED" in ran.err
    again = shell.run("migrate", "--from", empty, "--to", empty + "x")
    assert again.code == 1
    told = ran.out + ran.err + again.out + again.err
    assert postgres.password not in told
