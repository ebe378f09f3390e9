"""A real PostgreSQL server of the tests' own, in a folder of its own, on a free port of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
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

    @property
    def running(self) -> bool:
        """Whether its first process is there."""
        status = [self.programs / "pg_ctl", "-D", self.folder / "data", "status"]
        return subprocess.run(status, check=False, capture_output=True, user=_user(), cwd="/").returncode == 0

    def kill(self) -> None:
        """Kill every process of the server at once, as kill -9 does."""
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop every process where it is: connections stay, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let frozen processes go on."""
        self._signal(signal.SIGCONT)

    def promote(self) -> None:
        """Make a standby the primary; return when it takes writes."""
        _run(self.programs / "pg_ctl", "-D", self.folder / "data", "-w", "-t", STARTS_S, "promote")

    def _signal(self, what: signal.Signals) -> None:
        with contextlib.suppress(FileNotFoundError):
            first = (self.folder / "data" / "postmaster.pid").read_text().split()[0]
            for pid in (first, *_children(first)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), what)

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
def serving(*settings: str, files: Mapping[str, bytes] | None = None) -> Iterator[Postgres]:
    """A fresh server while the context lasts. settings: lines for postgresql.conf. files: put into the data folder."""
    bin_folder = programs()
    assert bin_folder is not None, "Debian's package postgresql is not installed"
    password = secrets.token_hex(16)
    with _folder() as folder:
        secret = folder / "password"
        secret.write_text(password)
        _hand_over(secret)
        options = ("-U", "postgres", "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--locale=C")
        _run(bin_folder / "initdb", "-D", folder / "data", *options)
        for name, content in (files or {}).items():
            path = folder / "data" / name
            path.write_bytes(content)
            path.chmod(0o600)
            _hand_over(path)
        server = Postgres(port=_free_port(), folder=folder, programs=bin_folder, password=password)
        with _running(server, "max_connections = 200", *settings):
            yield server


@contextlib.contextmanager
def standby(primary: Postgres) -> Iterator[Postgres]:
    """A synchronous standby of `primary` while the context lasts: the primary acknowledges only what is here too."""
    with _folder() as folder:
        server = dataclasses.replace(primary, port=_free_port(), folder=folder)
        source = f"{primary.url('postgres')}?application_name=standby"
        _run(
            primary.programs / "pg_basebackup", "-D", folder / "data", "-X", "stream", "-c", "fast", "-R", "-d", source
        )
        with _running(server):
            primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            primary.sql("postgres", "SELECT pg_reload_conf()")
            until = time.monotonic() + STARTS_S
            while primary.sql("postgres", "SELECT sync_state FROM pg_stat_replication") != "sync":
                assert time.monotonic() < until, "the standby does not follow"
                time.sleep(0.05)
            yield server


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        _hand_over(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running(server: Postgres, *settings: str) -> Iterator[None]:
    own = (
        f"port = {server.port}",
        "listen_addresses = '127.0.0.1'",
        f"unix_socket_directories = '{server.folder}'",
    )
    with (server.folder / "data" / "postgresql.conf").open("a") as conf:
        conf.write("\n".join((*own, *settings, "")))
    server.start()
    try:
        yield
    finally:
        server.thaw()
        with contextlib.suppress(subprocess.CalledProcessError):  # the test killed it
            server.stop()


def _run(*command: object) -> None:
    """Run as a user whom the server accepts: it refuses root."""
    subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, timeout=STARTS_S, user=_user(), cwd="/"
    )


def _user() -> str | None:
    return "postgres" if os.getuid() == 0 else None


def _children(pid: str) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if stat.read_text().rpartition(")")[2].split()[1] == pid:
                found.append(stat.parent.name)
    return found


def _hand_over(path: Path) -> None:
    if os.getuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
