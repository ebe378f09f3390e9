"""`serve`: says when it is ready, lets itself down in order, and shares its database with nobody."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def test_serve_prints_one_line_and_ends_in_order(serve_in: Any, folder: Path) -> None:
    """Standard output is the ready line alone; SIGTERM ends with 0 and a closed audit log."""
    with serve_in(folder) as standing:
        standing.process.terminate()
        rest, _ = standing.process.communicate(timeout=60)
    assert (standing.process.returncode, rest) == (0, "")
    with sqlite3.connect(folder / "broker.db") as database:
        assert database.execute("SELECT count(*) FROM audit_log WHERE closed_at IS NULL").fetchone() == (0,)
    database.close()


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_a_supervisor_that_asks_is_told(
    serve_in: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool
) -> None:
    """Where NOTIFY_SOCKET names a socket, it hears READY when the broker listens and STOPPING when it ends."""
    address = f"@tokenbroker-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.settimeout(60)
        supervisor.bind(f"\0{address[1:]}" if abstract else address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        with serve_in(folder) as standing:
            assert supervisor.recv(64) == b"READY=1"
            standing.process.terminate()
            standing.process.communicate(timeout=60)
        assert supervisor.recv(64) == b"STOPPING=1"


def test_a_supervisor_that_does_not_listen_stops_nothing(
    serve_in: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that is gone costs a line in the log."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    with serve_in(folder) as standing:
        standing.process.terminate()
        standing.process.communicate(timeout=60)
    assert standing.process.returncode == 0


def test_a_second_broker_is_refused(shell: Any, house: Any) -> None:
    """The same SQLite file is not served twice; the line names the process that has it."""
    complaint = shell.refused("serve", "--data-dir", house.folder, "--listen", "127.0.0.1:0")
    assert f"in use by process {house.process.pid}" in complaint


def test_nothing_else_restores_beside_a_running_broker(shell: Any, house: Any, tmp_path: Path) -> None:
    """A restore is refused while the database is served."""
    (tmp_path / "copy").write_bytes(b"")
    assert "in use" in shell.refused("restore", tmp_path / "copy", "--data-dir", house.folder)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_out_of_core_dumps(house: Any) -> None:
    """A serving process has a core limit of 0 and is not dumpable, so /proc shows it as root's."""
    limits = Path(f"/proc/{house.process.pid}/limits")
    if os.geteuid() == 0:
        core = next(line for line in limits.read_text().splitlines() if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["0", "0"]
    assert Path(f"/proc/{house.process.pid}/mem").stat().st_uid == 0


def test_a_second_signal_ends_at_once(folder: Path) -> None:
    """While it drains for a worker that does not go, a second signal ends the process without waiting."""
    program = (
        "import asyncio, broker.cli.serve as command\n"
        "async def drains_for_ever(settings, *, stop, ready, reload, accept_audit_loss):\n"
        "    ready('here'); await stop.wait(); print('draining', flush=True); await asyncio.Event().wait()\n"
        "command.serve_broker = drains_for_ever\n"
        "from broker.cli.main import main; main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", "--data-dir", str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "listening on here\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "draining\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 128 + signal.SIGINT
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_a_loss_that_the_operator_accepts_is_started_from_and_recorded(serve_in: Any, folder: Path) -> None:
    """With --accept-audit-loss a broker serves a log that lost entries, and the next log says how many."""
    with contextlib.closing(sqlite3.connect(folder / "broker.db", isolation_level=None)) as database:
        database.execute("DELETE FROM audit_block WHERE seq >= 1")
    with serve_in(folder, "--accept-audit-loss") as standing:
        (opened,) = [
            entry["entry"]
            for entry in standing.shell.json("audit", "tail")
            if (entry["log"], entry["entry"]["event"]) == (2, "log.opened")
        ]
    assert opened["accepted_loss"] > 0


@pytest.mark.parametrize("options", [(), ("--config", "a", "--data-dir", "b")])
def test_serve_wants_one_configuration(shell: Any, options: tuple[str, ...]) -> None:
    """Neither or both of --config and --data-dir is a usage error."""
    assert shell.run("serve", *options).code == 2
