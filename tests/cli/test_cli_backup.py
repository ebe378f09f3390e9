"""`backup` and `restore`: a copy while it serves, put back where nothing is, with everything that was in it."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any


def test_a_backup_brings_back_what_was_there(shell: Any, serve_in: Any, folder: Path, tmp_path: Path) -> None:
    """Taken online, mode 0600, restored over a moved-away database: the token can be revealed, the log verifies."""
    copy = tmp_path / "copy"
    with serve_in(folder) as standing:
        standing.shell.ok("token", "put", "kept/a", stdin=b"kept")
        told = standing.shell.json("backup", "--out", copy)
        standing.shell.ok("token", "put", "kept/b", stdin=b"later")
    assert told == {"backup": str(copy), "bytes": copy.stat().st_size}
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    (folder / "broker.db").rename(tmp_path / "lost.db")
    restored = shell.json("restore", copy, "--data-dir", folder)
    assert restored["restored"] == str(folder / "broker.db")
    with serve_in(folder) as standing:
        assert standing.shell.ok("token", "reveal", "kept/a").out == "kept"
        assert "kept/b" in standing.shell.refused("token", "show", "kept/b")
        assert standing.shell.json("audit", "verify", "--live")["ok"] is True


def test_nothing_is_overwritten(shell: Any, house: Any, folder: Path, tmp_path: Path) -> None:
    """Neither a backup over a file nor a restore over a database."""
    copy = tmp_path / "copy"
    house.shell.ok("backup", "--out", copy)
    content = copy.read_bytes()
    assert "exists" in house.shell.refused("backup", "--out", copy)
    before = (folder / "broker.db").read_bytes()
    assert "exists" in shell.refused("restore", copy, "--data-dir", folder)
    assert (copy.read_bytes(), (folder / "broker.db").read_bytes()) == (content, before)


def test_what_is_no_backup_is_not_restored(shell: Any, folder: Path, tmp_path: Path) -> None:
    """A missing file, and a file that is no database, are refused, and no database appears."""
    (folder / "broker.db").unlink()
    (tmp_path / "text").write_text("no database, but text that is long enough")
    assert "no backup" in shell.refused("restore", tmp_path / "none", "--data-dir", folder)
    assert "not a tokenbroker database" in shell.refused("restore", tmp_path / "text", "--data-dir", folder)
    assert not (folder / "broker.db").exists()


def test_restore_wants_one_configuration(shell: Any, tmp_path: Path) -> None:
    """Without a configuration it is a usage error."""
    assert shell.run("restore", tmp_path / "copy").code == 2
