"""A real PgBouncer of the tests' own, in transaction mode, before a PostgreSQL server of `parts/postgres.py`."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STARTS_S = 30
"""How long it may take until the port answers."""

_CONFIG = """\
[databases]
* = host=127.0.0.1 port={server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 3
server_idle_timeout = 1
max_client_conn = 200
"""


def program() -> str | None:
    """Where PgBouncer is; None: it is not installed."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@dataclass(frozen=True, kw_only=True)
class PgBouncer:
    """A running pooler: three connections to the server for each database and role."""

    port: int
    server: Any

    def url(self, database: str, *, user: str = "postgres") -> str:
        """Where that database is, past the pooler."""
        return f"postgresql://{user}:{self.server.password}@127.0.0.1:{self.port}/{database}?pgbouncer=1"


@contextlib.contextmanager
def serving(server: Any) -> Iterator[PgBouncer]:
    """A pooler before `server` while the context lasts."""
    executable = program()
    assert executable is not None, "Debian's package pgbouncer is not installed"
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    port = _free_port()
    (folder / "ini").write_text(_CONFIG.format(server=server, port=port, folder=folder))
    roles = ("postgres", "tokenbroker_migrator", "tokenbroker_broker")
    (folder / "users").write_text("".join(f'"{role}" "{server.password}"\n' for role in roles))
    user = "postgres" if os.getuid() == 0 else None
    if user is not None:
        owner = pwd.getpwnam(user)
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([executable, str(folder / "ini")], stdout=log, stderr=log, user=user, cwd="/")
    try:
        _await(port, process, folder / "log")
        yield PgBouncer(port=port, server=server)
    finally:
        process.terminate()
        process.wait(STARTS_S)
        shutil.rmtree(folder, ignore_errors=True)


def _await(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + STARTS_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, "pgbouncer does not listen"
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
