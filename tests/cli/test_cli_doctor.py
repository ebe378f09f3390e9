"""`doctor`: sound installations pass, each fault is named with its remedy, and nothing is changed by looking."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

CHECKS = {
    "configuration",
    "listening",
    "configuration file",
    "data folder",
    "database file",
    "profile",
    "disk",
    "open files",
    "storage",
    "KMS",
    "cluster",
    "authority",
    "data keys",
    "audit log",
    "clock",
}


def _sql(statement: str) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "broker.db", isolation_level=None)) as database:
            database.execute(statement)

    return spoil


def _listen_everywhere(folder: Path) -> None:
    path = folder / "broker.toml"
    path.write_text(path.read_text().replace("127.0.0.1:8420", "0.0.0.0:8420"))


FAULTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no configuration": (lambda folder: (folder / "broker.toml").unlink(), "configuration", "init"),
    "configuration open": (lambda folder: (folder / "broker.toml").chmod(0o666), "configuration file", "chmod"),
    "folder open": (lambda folder: folder.chmod(0o777), "data folder", "chmod 700"),
    "database open": (lambda folder: (folder / "broker.db").chmod(0o644), "database file", "chmod 600"),
    "profile open": (lambda folder: (folder / "profile.toml").chmod(0o644), "profile", "chmod 600"),
    "plaintext": (_listen_everywhere, "listening", "server.tls_cert"),
    "no database": (lambda folder: (folder / "broker.db").unlink(), "storage", "tokenbroker init"),
    "no key": (lambda folder: (folder / "kms.key").unlink(), "KMS", "kms.key"),
    "forged row": (_sql('UPDATE admin SET roles = \'["admin","auditor"]\''), "authority", "MAC"),
    "hidden row": (_sql("DELETE FROM keyring"), "authority", "keyring"),
    "cut log": (_sql("DELETE FROM audit_block WHERE seq > 0"), "audit log", "backup"),
    "clock behind": (_sql("UPDATE audit_log SET opened_at = opened_at + 864000000000"), "clock", "NTP"),
}


def test_a_sound_installation_passes(shell: Any, folder: Path) -> None:
    """Every check is there, none failed, exit code 0."""
    told = shell.json("doctor", "--data-dir", folder)
    assert told["ok"] is True
    assert {check["check"] for check in told["checks"]} == CHECKS
    assert {check["state"] for check in told["checks"]} <= {"ok", "warning"}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(shell: Any, folder: Path, fault: str) -> None:
    """The check that looks at it fails with the remedy, and the exit code is 1."""
    spoil, check, remedy = FAULTS[fault]
    spoil(folder)
    ran = shell.run("doctor", "--data-dir", folder, "--json")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    failed = {each["check"]: each["said"] for each in ran.document["checks"] if each["state"] == "failed"}
    assert remedy in failed[check]


def test_looking_changes_nothing_beside_a_broker(shell: Any, house: Any) -> None:
    """While a broker serves, the doctor only reads, and says so."""
    told = shell.json("doctor", "--data-dir", house.folder)
    assert told["ok"] is True
    (storage,) = [check for check in told["checks"] if check["check"] == "storage"]
    assert "nothing was written" in storage["said"]


def test_a_missing_database_is_not_made(shell: Any, folder: Path) -> None:
    """Looking for a database does not create one."""
    (folder / "broker.db").unlink()
    shell.run("doctor", "--data-dir", folder)
    assert not (folder / "broker.db").exists()


def test_people_get_a_line_for_each_check(shell: Any, folder: Path) -> None:
    """Without --json there is one line a check, that begins with its state."""
    lines = shell.ok("doctor", "--data-dir", folder).out.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "warning"}
    assert len(lines) >= len(CHECKS)
