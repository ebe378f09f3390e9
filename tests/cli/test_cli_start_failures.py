"""What must not be served: each cause has its own line, exit code 1, and never a traceback."""

from __future__ import annotations

import resource
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kms.local import create_key_file

Spoil = Callable[[Path], object]


def _rewrite(name: str, old: str, new: str) -> Spoil:
    def spoil(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return spoil


def _append(text: str) -> Spoil:
    def spoil(folder: Path) -> None:
        with (folder / "broker.toml").open("a") as file:
            file.write(text)

    return spoil


def _sql(statement: str) -> Spoil:
    def spoil(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "broker.db", isolation_level=None)) as database:
            database.execute(statement)

    return spoil


def _another_key(folder: Path) -> None:
    (folder / "kms.key").unlink()
    create_key_file(folder / "kms.key")


def _another_pin(folder: Path) -> None:
    path = folder / "broker.toml"
    path.write_text(
        "".join('id = "abc"\n' if line.startswith("id =") else f"{line}\n" for line in path.read_text().splitlines())
    )


def _no_pin(folder: Path) -> None:
    path = folder / "broker.toml"
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines() if not line.startswith("id =")))


def _garbage(folder: Path) -> None:
    (folder / "broker.db").write_bytes(b"no database at all, but some text that is long enough" * 100)


def _torn(folder: Path) -> None:
    content = bytearray((folder / "broker.db").read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    (folder / "broker.db").write_bytes(content)


CAUSES: dict[str, tuple[Spoil, str]] = {
    "no configuration": (lambda folder: (folder / "broker.toml").unlink(), "there is no configuration"),
    "not TOML": (_append("[[[\n"), "cannot be read"),
    "unknown key": (_append("[leases]\nforever = true\n"), "leases.forever is no key of the configuration"),
    "unknown section": (_append("[what]\nx = 1\n"), "what is no key"),
    "out of its bound": (_append("[leases]\nper_session = 0\n"), "leases.per_session"),
    "listens nowhere": (_rewrite("broker.toml", "127.0.0.1:8420", "here"), "HOST:PORT"),
    "plaintext for everybody": (_rewrite("broker.toml", "127.0.0.1:8420", "0.0.0.0:0"), "not loopback"),
    "unknown storage": (_rewrite("broker.toml", "sqlite:///", "oracle:///"), "no storage adapter"),
    "no folder for the database": (_rewrite("broker.toml", "/broker.db", "/none/broker.db"), "/none"),
    "missing key file": (lambda folder: (folder / "kms.key").unlink(), "kms.key"),
    "exposed key file": (lambda folder: (folder / "kms.key").chmod(0o644), "chmod 600"),
    "another key file": (_another_key, "the root key does not open"),
    "another cluster.id": (_another_pin, "cluster.id is not what init printed"),
    "no cluster.id": (_no_pin, "cluster.id is not set"),
    "no cluster": (lambda folder: (folder / "broker.db").unlink(), "run `tokenbroker init`"),
    "not a database": (_garbage, "is not a tokenbroker database"),
    "a damaged database": (_torn, "damaged"),
    "a newer database": (_sql("PRAGMA user_version = 999"), "this tokenbroker knows up to"),
    "another program's database": (_sql("PRAGMA application_id = 7"), "another application"),
    "audit entries removed": (_sql("DELETE FROM audit_block WHERE seq >= 1"), "audit log 1 was changed"),
    "a keyring changed by somebody else": (_sql("UPDATE keyring SET authorize = 'kms'"), "does not fit its MAC"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_has_its_own_line(shell: Any, folder: Path, cause: str) -> None:
    """The broker does not start, and its one line names what is wrong."""
    spoil, said = CAUSES[cause]
    spoil(folder)
    assert said in shell.refused("serve", "--data-dir", folder)


def test_a_port_in_use_is_named(shell: Any, folder: Path) -> None:
    """The line names the address that somebody else has."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert address in shell.refused("serve", "--data-dir", folder, "--listen", address)


def test_a_database_locked_by_another_program_is_named(shell: Any, folder: Path) -> None:
    """A process that holds SQLite's own lock is waited for a moment, then named as the cause."""
    with _locked(folder / "broker.db"):
        assert "locked by another process" in shell.refused("serve", "--data-dir", folder)


def test_a_full_disk_is_named(shell: Any, folder: Path) -> None:
    """Where the disk takes no more bytes the broker does not start."""

    def no_more() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    ran = shell.run_afresh("serve", "--data-dir", folder, "--listen", "127.0.0.1:0", preexec_fn=no_more)
    assert ran.code == 1
    assert "disk" in ran.complaint


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")
