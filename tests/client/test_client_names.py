"""The names of the client package, some of which are imported when they are first named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tokenbroker_client


def _run(script: str) -> str:
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_name_is_there_at_once() -> None:
    """A fresh process that asks for all names gets each of them, and was told of them before."""
    _run(
        "import tokenbroker_client as package; names = set(package.__all__); assert names <= set(dir(package));"
        "found = {}; exec('from tokenbroker_client import *', found); assert names <= set(found), names - set(found)"
    )


def test_a_misspelled_name_is_found_by_type_checkers(tmp_path: Path) -> None:
    """mypy says of an app which name is wrong, as it would of a package that imports all at once."""
    app = tmp_path / "app.py"
    app.write_text("from tokenbroker_client import Broker, Brocker\n")
    command = [sys.executable, "-m", "mypy", "--follow-imports=skip", f"--cache-dir={tmp_path}"]
    ended = subprocess.run(
        [*command, tokenbroker_client.__file__, str(app)], capture_output=True, text=True, check=False
    )
    assert 'has no attribute "Brocker"' in ended.stdout, ended.stderr
    assert "Found 1 error" in ended.stdout


def test_what_cannot_be_imported_says_why() -> None:
    """A library that lacks what the client needs of it is named, and not called a missing name of the client."""
    told = _run(
        "import cryptography.hazmat.primitives.asymmetric.ed25519 as library; del library.Ed25519PrivateKey\n"
        "try: from tokenbroker_client import WorkerKey\n"
        "except ImportError as error: print(error)"
    )
    assert "cannot import name 'Ed25519PrivateKey'" in told
