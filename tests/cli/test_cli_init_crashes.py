"""`init` killed at each moment that makes something visible: running it again ends with one working installation."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from broker.admin.credentials import credential_sha256
from broker.app import open_broker
from broker.profile import read_profile
from broker.settings import load_settings

# Runs init, and kills the process just before the N-th file operation of a kind that publishes something in the folder.
CRASHING = """
import os, signal, sys
folder, wanted, seen = sys.argv[1], int(sys.argv[2]), 0
def watch(event, arguments):
    global seen
    if event in {"os.mkdir", "os.link", "os.rename", "os.remove", "sqlite3.connect"} and folder in str(arguments):
        seen += 1
        if seen == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
sys.argv = ["tokenbroker", "init", "--data-dir", folder]
from broker.cli.main import main
try:
    main()
finally:
    print(seen)
"""


def _run(folder: Path, wanted: int) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOKENBROKER_")}
    return subprocess.run(
        [sys.executable, "-c", CRASHING, str(folder), str(wanted)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many such operations an undisturbed run has."""
    ran = _run(tmp_path_factory.mktemp("whole") / "d", 0)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout.split()[-1])


# In tenths of the whole run, so that the list need not follow each change of the order.
@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_init_after_a_crash_ends_with_a_working_installation(
    moments: int, initialise_in: Any, tmp_path: Path, share: float
) -> None:
    """After a kill, init makes the rest: the pin opens the root, and the profile is that of the only admin."""
    folder = tmp_path / "d"
    crashed = _run(folder, 1 + round(share * (moments - 1)))
    assert crashed.returncode == -9, crashed.stderr
    first = initialise_in(folder)
    assert initialise_in(folder).cluster_id == first.cluster_id
    assert tomllib.loads((folder / "broker.toml").read_text())["cluster"]["id"] == first.cluster_id
    assert first.profile is not None
    admins, keyrings = asyncio.run(_authority(folder))
    credential = read_profile(first.profile).credential.reveal().decode()
    assert (admins, keyrings) == ([credential_sha256(credential)], ["default"])
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith("broker.db")) == [
        "audit.vkey",
        "broker.toml",
        "kms.key",
        "profile.toml",
    ]


async def _authority(folder: Path) -> tuple[list[bytes], list[str]]:
    async with open_broker(load_settings(folder / "broker.toml", {})) as broker:
        admins = [admin.credential_sha256 for admin in broker.authority.admins]
        return admins, [keyring.name for keyring in broker.authority.keyrings]
