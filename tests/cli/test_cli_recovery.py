"""`recovery`: a key whose private half is shown once, and whose paper can be tried before the day it is needed."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kms.recovery.text import paper_text, read_paper


@pytest.fixture
def made(shell: Any) -> dict[str, str]:
    """A fresh recovery key: `uri`, `private_half`."""
    document: dict[str, str] = shell.json("recovery", "keygen", "--print")
    return document


@pytest.fixture
def configured(shell: Any, tmp_path: Path) -> Callable[..., Path]:
    """Initialises a folder whose configuration names a local key and these."""

    def make(*uris: str) -> Path:
        folder = tmp_path / "conf"
        folder.mkdir(mode=0o700)
        config = folder / "broker.toml"
        keys = ", ".join(f'"{uri}"' for uri in (f"local:{folder / 'kms.key'}", *uris))
        config.write_text(f'[storage]\nurl = "sqlite:///{folder / "broker.db"}"\n[kms]\nkeys = [{keys}]\n')
        shell.ok("init", "--config", config)
        return config

    return make


def test_the_private_half_does_not_land_in_a_log(shell: Any) -> None:
    """Where standard output is no terminal, keygen shows nothing unless it is told to."""
    assert "--print" in shell.refused("recovery", "keygen")


def test_keygen_shows_both_halves_on_a_terminal() -> None:
    """On a terminal the URI and the paper are shown; what is typed off it is the private half of that URI."""
    ours, theirs = pty.openpty()
    process = subprocess.run(
        [sys.executable, "-m", "broker.cli.main", "recovery", "keygen"],
        stdout=theirs,
        stderr=subprocess.PIPE,
        check=True,
    )
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    uri = next(word for word in shown.split() if word.startswith("recovery:"))
    assert len(read_paper(shown[shown.index("TBR1") :])) == 32
    checked = subprocess.run(
        [sys.executable, "-m", "broker.cli.main", "recovery", "check", uri],
        input=shown[shown.index("TBR1") :].encode(),
        check=False,
        capture_output=True,
    )
    assert (checked.returncode, uri in checked.stdout.decode()) == (0, True), checked.stderr
    assert b"TBR1" not in process.stderr


def test_every_key_is_another(shell: Any, made: dict[str, str]) -> None:
    """Two keygens give two keys."""
    assert shell.json("recovery", "keygen", "--print")["uri"] != made["uri"]


@pytest.mark.parametrize("way", ["stdin", "file", "env"])
def test_a_paper_says_whose_it_is(shell: Any, made: dict[str, str], tmp_path: Path, way: str) -> None:
    """Read from where secrets are read, it names its public half, and shows nothing of itself."""
    paper = made["private_half"]
    (tmp_path / "typed").write_text(paper.lower())
    if way == "stdin":
        ran = shell.ok("recovery", "check", made["uri"], stdin=paper.encode())
    elif way == "file":
        ran = shell.ok("recovery", "check", made["uri"], "--file", tmp_path / "typed")
    else:
        ran = shell.with_environment(PAPER=paper).ok("recovery", "check", made["uri"], "--env", "PAPER")
    assert made["uri"] in ran.out
    assert not any(group in ran.out + ran.err for group in paper.split()[1:])


def test_a_slip_of_the_pen_is_found_in_its_group(shell: Any, made: dict[str, str]) -> None:
    """The refusal names the group, and nothing of what was typed."""
    words = made["private_half"].split()
    words[7] = ("0" if words[7][0] != "0" else "1") + words[7][1:]
    complaint = shell.refused("recovery", "check", stdin=" ".join(words).encode())
    assert "group 7 is mistyped" in complaint
    assert words[7] not in complaint


def test_another_keys_paper_fails_the_check(shell: Any, made: dict[str, str]) -> None:
    """Exit code 3, and both public halves are named."""
    other = paper_text(os.urandom(32))
    ran = shell.run("recovery", "check", made["uri"], stdin=other.encode())
    assert ran.code == 3
    assert f"it does not belong to {made['uri']}" in ran.out


def test_it_opens_every_key_of_its_installation_and_of_a_backup(
    shell: Any, serve_in: Any, made: dict[str, str], configured: Any, tmp_path: Path
) -> None:
    """With the configuration, with a backup, and with both; the database is not changed by a byte."""
    config = configured(made["uri"])
    with serve_in(config.parent) as standing:
        standing.shell.ok("key", "rotate", "default")
        standing.shell.ok("backup", "--out", tmp_path / "copy")
    before = (config.parent / "broker.db").read_bytes()
    paper = made["private_half"].encode()
    for options in (
        ("--config", config),
        ("--backup", tmp_path / "copy"),
        ("--config", config, "--backup", tmp_path / "copy"),
    ):
        told = shell.json("recovery", "check", *options, stdin=paper)
        assert (told["ok"], told["data_keys"], told["problems"]) == (True, 2, [])
        assert told["cluster_id"] in config.read_text()
    assert (config.parent / "broker.db").read_bytes() == before


def test_keys_that_were_never_wrapped_for_it_are_told(shell: Any, made: dict[str, str], configured: Any) -> None:
    """A recovery key that was added without a rewrap fails the check, with the remedy."""
    config = configured()
    paper = made["private_half"].encode()
    ran = shell.run("recovery", "check", "--config", config, "--json", stdin=paper)
    assert ran.code == 3
    assert ran.document["ok"] is False
    stranger, root = ran.document["problems"]
    assert "no recovery key" in stranger
    assert "root key is not wrapped" in root
    assert "key rewrap" in root


def test_init_with_a_recovery_key_alone_is_refused(shell: Any, made: dict[str, str], tmp_path: Path) -> None:
    """A cluster that nothing opens is not founded."""
    config = tmp_path / "broker.toml"
    config.write_text(f'[storage]\nurl = "sqlite:///{tmp_path / "broker.db"}"\n[kms]\nkeys = ["{made["uri"]}"]\n')
    assert "name a KMS key beside it" in shell.refused("init", "--config", config)


def test_what_is_asked_for_twice_is_a_usage_error(shell: Any) -> None:
    """Two sources of the private half, or two configurations."""
    assert shell.run("recovery", "check", "--file", "f", "--env", "V").code == 2
    assert shell.run("recovery", "check", "--config", "c", "--data-dir", "d").code == 2
    assert "not set" in shell.refused("recovery", "check", "--env", "NO_SUCH_PAPER")
