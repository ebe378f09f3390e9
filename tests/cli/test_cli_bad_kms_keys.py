"""A KMS key that is none: whatever reads the configuration says which, and what to do, and exits with 1."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
RING = "projects/p/locations/europe-west3/keyRings/r"

BAD = {
    "local": ("local:/etc/kms.key?color=red", r"unknown option"),
    "aws-kms": (f"aws-kms:{ARN}?color=red", r"unknown option 'color'"),
    "aws-kms-region": ("aws-kms:alias/tokenbroker", r"region"),
    "transit": ("transit:https://vault.example:8200/tokens", r"the path holds a mount and a key, as in transit:https"),
    "transit-plain": ("transit:http://vault.example:8200/transit/tokens", r"loopback"),
    "pkcs11": ("pkcs11:token=t?module-path=/lib/hsm.so&pin-source=file:/etc/pin", r"name the key: object="),
    "azure-kv": ("azure-kv:http://team.vault.azure.net/keys/broker", r"azure-kv:https://"),
    "gcp-kms": (f"gcp-kms:{RING}", r"cryptoKeys"),
    "recovery": ("recovery:0000-0000", r"recovery"),
    "a typing error": ("locale:/etc/kms.key", r"no adapter for the scheme 'locale'; installed: .*local"),
    "no URI": ("/var/lib/tokenbroker/kms.key", r"it reads SCHEME:WHAT"),
}


@pytest.fixture(params=BAD)
def bad(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A URI that names no key, and what is said of it."""
    return BAD[request.param]


def name(folder: Path, uri: str) -> Path:
    """Name the key in a keyring of the configuration, beside what is there."""
    config = folder / "broker.toml"
    text = config.read_text().partition("\n[keyrings")[0]
    config.write_text(f"{text}\n[keyrings.more]\nkms_keys = [{json.dumps(uri)}]\n")
    return config


def check(line: str, said: str, *, where: str = "keyrings.more.kms_keys number 1") -> None:
    """The line names the place of the key, its scheme, and what is wrong or would be right."""
    assert where in line, line
    assert re.search(said, line), line


def test_serve_refuses(shell: Any, folder: Path, bad: tuple[str, str]) -> None:
    """A broker does not start."""
    check(shell.refused("serve", "--config", name(folder, bad[0])), bad[1])


def test_init_refuses(shell: Any, tmp_path: Path, bad: tuple[str, str]) -> None:
    """No cluster is founded on it."""
    config = tmp_path / "broker.toml"
    config.write_text(f'[storage]\nurl = "sqlite:///{tmp_path / "broker.db"}"\n[kms]\nkeys = [{json.dumps(bad[0])}]\n')
    config.chmod(0o600)
    check(shell.refused("init", "--config", config), bad[1], where="kms.keys number 1")
    assert "id =" not in config.read_text()


def test_doctor_says_so(shell: Any, folder: Path, bad: tuple[str, str]) -> None:
    """The finding is a failure with a remedy."""
    ran = shell.run("doctor", "--config", name(folder, bad[0]), "--json")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    (found,) = [each for each in ran.document["checks"] if each["check"] == "KMS" and each["state"] == "failed"]
    check(found["said"], bad[1])
    assert "Mend its URI or what that names, or take it out of the configuration" in found["said"]


def test_a_reload_refuses(serve_in: Any, folder: Path) -> None:
    """A serving broker says in its log what it was told, and serves on as before; for each of them in turn."""
    with serve_in(folder) as house:
        log = folder.parent / f"{folder.name}.log"
        for uri, said in BAD.values():
            before = len(refusals(log))
            name(folder, uri)
            os.kill(house.process.pid, signal.SIGHUP)
            deadline = time.monotonic() + 30
            while len(refusals(log)) == before:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            check(refusals(log)[-1]["error"], said)
        assert house.shell.json("key", "list")
        assert "Traceback" not in log.read_text()


def refusals(log: Path) -> list[Any]:
    """The lines that say that a configuration was refused."""
    return [json.loads(line) for line in log.read_text().splitlines() if '"configuration_refused"' in line]
