"""A real PostgreSQL server of the tests' own, in a folder of its own, on a free port of this machine."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

STARTS_S = 60
"""How long making and starting a server may take."""


def programs() -> Path | None:
    """The folder of the newest installed server's programs; None: there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A running server. Each database that is made is empty."""

    port: int
    folder: Path
    programs: Path
    password: str = field(repr=False)

    def url(self, database: str, *, user: str = "postgres", options: str = "") -> str:
        """Where that database is."""
        return f"postgresql://{user}:{self.password}@127.0.0.1:{self.port}/{database}{options}"

    def create(self) -> str:
        """The name of a fresh database."""
        name = f"t{secrets.token_hex(6)}"
        self.sql("postgres", f'CREATE DATABASE "{name}"')
        return name

    def give_roles(self, database: str) -> None:
        """Run config/postgres/roles.sql there; each role's password is the server's."""
        script = Path(__file__).parents[2] / "config" / "postgres" / "roles.sql"
        command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", self.url(database), "-f", str(script)]
        subprocess.run(command, check=True, capture_output=True, timeout=STARTS_S)
        for role in ("migrator", "broker", "auditor"):
            self.sql("postgres", f"ALTER ROLE tokenbroker_{role} PASSWORD '{self.password}'")

    def stop(self) -> None:
        """Kill the server as a power cut would."""
        _run(self.programs / "pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")

    def start(self) -> None:
        """Start the server that was stopped; return when it answers."""
        log = self.folder / "log"
        _run(self.programs / "pg_ctl", "-D", self.folder / "data", "-w", "-t", STARTS_S, "-l", log, "start")

    def sql(self, database: str, text: str, *, user: str = "postgres") -> str:
        """What psql prints for `text`. CalledProcessError: it failed."""
        done = subprocess.run(
            ["psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", self.url(database, user=user), "-c", text],
            check=True,
            capture_output=True,
            text=True,
            timeout=STARTS_S,
        )
        return done.stdout.strip()


@contextlib.contextmanager
def serving(*settings: str) -> Iterator[Postgres]:
    """A fresh server while the context lasts. settings: lines for postgresql.conf."""
    bin_folder = programs()
    assert bin_folder is not None, "Debian's package postgresql is not installed"
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    password = secrets.token_hex(16)
    try:
        data = folder / "data"
        secret = folder / "password"
        secret.write_text(password)
        _hand_over(folder)
        _run(
            bin_folder / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            f"--pwfile={secret}",
            "-E",
            "UTF8",
            "--locale=C",
        )
        port = _free_port()
        with (data / "postgresql.conf").open("a") as conf:
            conf.write(
                "\n".join(
                    (
                        f"port = {port}",
                        "listen_addresses = '127.0.0.1'",
                        f"unix_socket_directories = '{folder}'",
                        "max_connections = 200",
                        *settings,
                        "",
                    )
                )
            )
        server = Postgres(port=port, folder=folder, programs=bin_folder, password=password)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: object) -> None:
    """Run as a user whom the server accepts: it refuses root."""
    subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, timeout=STARTS_S, user=_user(), cwd="/"
    )


def _user() -> str | None:
    return "postgres" if os.getuid() == 0 else None


def _hand_over(folder: Path) -> None:
    if os.getuid() == 0:
        owner = pwd.getpwnam("postgres")
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner.pw_uid, owner.pw_gid)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
