"""The worst day: every KMS key is lost, and a backup, the configuration and a sheet of paper bring everything back."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kms.local import create_key_file

COMMAND = [sys.executable, "-m", "broker.cli.main"]


def configure(folder: Path, *keys: str, more: str = "", cluster: str | None = None) -> Path:
    """Write a configuration of these KMS keys, and sections behind; the cluster is the one that was pinned there."""
    config = folder / "broker.toml"
    pinned = re.search(r'(?m)^id = "([^"]*)"', config.read_text()) if config.exists() else None
    cluster = cluster if cluster is not None else pinned[1] if pinned else ""
    listed = ", ".join(f'"{key}"' for key in keys)
    config.write_text(
        (f'[cluster]\nid = "{cluster}"\n' if cluster else "")
        + f'[storage]\nurl = "sqlite:///{folder / "broker.db"}"\n[kms]\nkeys = [{listed}]\n{more}'
    )
    return config


def said(log: Path, event: str, times: int = 1) -> None:
    """Return when the broker's log has this event so often."""
    for _ in range(600):
        if log.read_text().count(event) >= times:
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text()[-2000:])


@pytest.fixture
def recovery_key(shell: Any) -> dict[str, str]:
    """A fresh recovery key: `uri`, `private_half`."""
    document: dict[str, str] = shell.json("recovery", "keygen", "--print")
    return document


def test_a_backup_and_a_sheet_of_paper_bring_everything_back(
    shell: Any, serve_in: Any, recovery_key: dict[str, str], tmp_path: Path
) -> None:
    """All KMS keys deleted: restored elsewhere, opened with the paper, moved to a new KMS key, the paper put away."""
    lost, found, copy = tmp_path / "lost", tmp_path / "found", tmp_path / "copy"
    lost.mkdir(mode=0o700)
    payments = f'\n[keyrings.payments]\nkms_keys = ["local:{lost / "pay.key"}", "{recovery_key["uri"]}"]\n'
    config = configure(lost, f"local:{lost / 'kms.key'}", recovery_key["uri"], more=payments)
    shell.ok("init", "--config", config)
    values = {f"team/{number}": f"value {number}" for number in range(5)}
    with serve_in(lost) as standing:
        for name, value in values.items():
            keyring = "payments" if name.endswith(("1", "3")) else "default"
            standing.shell.ok("token", "put", name, "--keyring", keyring, stdin=value.encode())
        standing.shell.ok("key", "rotate", "default")
        standing.shell.ok("token", "put", "team/late", stdin=b"value late")
        standing.shell.ok("backup", "--out", copy)
    values["team/late"] = "value late"
    for path in (lost / "kms.key", lost / "pay.key", lost / "broker.db"):
        path.unlink()

    # The new machine.
    found.mkdir(mode=0o700)
    shutil.copy(config, found / "broker.toml")
    shutil.copy(lost / "profile.toml", found / "profile.toml")
    paper = found / "paper"
    paper.touch(mode=0o600)
    paper.write_text(recovery_key["private_half"])
    create_key_file(found / "fresh.key")
    fresh, emergency = f"local:{found / 'fresh.key'}", f"{recovery_key['uri']}?private-key=file:{paper}"
    both = f'\n[keyrings.payments]\nkms_keys = ["{fresh}", "{emergency}"]\n'
    config = configure(found, fresh, emergency, more=both)
    shell.ok("restore", copy, "--config", config)
    checked = shell.json("recovery", "check", "--config", config, stdin=recovery_key["private_half"].encode())
    assert (checked["ok"], checked["data_keys"]) == (True, 3)
    with serve_in(found) as standing:
        assert {name: standing.shell.ok("token", "reveal", name).out for name in values} == values
        standing.shell.ok("key", "rewrap")
        daily = f'\n[keyrings.payments]\nkms_keys = ["{fresh}", "{recovery_key["uri"]}"]\n'
        configure(found, fresh, recovery_key["uri"], more=daily)
        standing.process.send_signal(signal.SIGHUP)
        said(tmp_path / "found.log", "configuration_reloaded")
        paper.unlink()
        standing.shell.ok("key", "rewrap")
        standing.shell.ok("key", "flush")
        assert {name: standing.shell.ok("token", "reveal", name).out for name in values} == values
        assert not any(key["needs_rewrap"] for key in standing.shell.json("key", "list"))
    with serve_in(found) as standing:
        assert {name: standing.shell.ok("token", "reveal", name).out for name in values} == values
        assert standing.shell.json("audit", "verify", "--live")["ok"] is True
    shell.ok("recovery", "check", "--config", config, stdin=recovery_key["private_half"].encode())


def test_without_the_paper_nothing_opens(shell: Any, recovery_key: dict[str, str], tmp_path: Path) -> None:
    """All KMS keys and the paper lost: the broker does not start, whatever fresh key it is given."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    config = configure(folder, f"local:{folder / 'kms.key'}", recovery_key["uri"])
    shell.ok("init", "--config", config)
    (folder / "kms.key").unlink()
    create_key_file(folder / "fresh.key")
    configure(folder, f"local:{folder / 'fresh.key'}", recovery_key["uri"])
    complaint = shell.refused("serve", "--config", config, "--listen", "127.0.0.1:0")
    assert "no key in kms.keys has wrapped the root key" in complaint
    assert "private half" in complaint


def test_a_recovery_key_is_added_to_a_running_broker(
    shell: Any, serve_in: Any, folder: Path, recovery_key: dict[str, str], tmp_path: Path
) -> None:
    """Name it, reload, rewrap: from then on its paper opens everything. A wrong line before changes nothing."""
    first = re.search(r'"(local:[^"]*)"', (folder / "broker.toml").read_text())
    assert first is not None
    log = tmp_path / "data.log"
    paper = recovery_key["private_half"].encode()
    with serve_in(folder) as standing:
        standing.shell.ok("token", "put", "team/one", stdin=b"one")
        configure(folder, first[1], recovery_key["uri"][:-2])
        standing.process.send_signal(signal.SIGHUP)
        said(log, "configuration_refused")
        assert shell.run("recovery", "check", "--data-dir", folder, stdin=paper).code == 3
        configure(folder, first[1], recovery_key["uri"])
        standing.process.send_signal(signal.SIGHUP)
        said(log, "configuration_reloaded")
        standing.shell.ok("key", "rewrap")
        assert shell.json("recovery", "check", "--data-dir", folder, stdin=paper)["ok"] is True
        events = [entry["entry"]["event"] for entry in standing.shell.json("audit", "tail")]
        assert events.count("configuration.reloaded") == 1


def test_keys_of_the_environment_wait_for_a_restart(
    shell: Any, folder: Path, recovery_key: dict[str, str], tmp_path: Path
) -> None:
    """TOKENBROKER_KMS__KEYS outlives every change of the file; a reload says so."""
    first = re.search(r'"(local:[^"]*)"', (folder / "broker.toml").read_text())
    assert first is not None
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--data-dir", str(folder), "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=log,
            env={**shell.environment, "TOKENBROKER_KMS__KEYS": first[1]},
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"listening on ")
        configure(folder, first[1], recovery_key["uri"])
        process.send_signal(signal.SIGHUP)
        said(tmp_path / "log", "kms_keys_stay")
        said(tmp_path / "log", "configuration_unchanged")
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_keyring_whose_kms_keys_left_too_early_is_told(
    shell: Any, serve_in: Any, folder: Path, tmp_path: Path
) -> None:
    """Its section is changed before a rewrap: doctor fails with the remedy, and so does the start."""
    first = re.search(r'"(local:[^"]*)"', (folder / "broker.toml").read_text())
    assert first is not None
    create_key_file(tmp_path / "pay.key")
    create_key_file(tmp_path / "new.key")
    config = configure(folder, first[1], more=f'[keyrings.payments]\nkms_keys = ["local:{tmp_path / "pay.key"}"]\n')
    with serve_in(folder):
        pass
    assert shell.json("doctor", "--config", config)["ok"] is True
    configure(folder, first[1], more=f'[keyrings.payments]\nkms_keys = ["local:{tmp_path / "new.key"}"]\n')
    remedy = f"local:{tmp_path / 'pay.key'} wrapped: put that KMS key back, run `tokenbroker key rewrap payments`"
    assert remedy in shell.run("doctor", "--config", config).out
    assert remedy in shell.refused("serve", "--config", config, "--listen", "127.0.0.1:0")


def test_a_policy_that_forgets_the_root_key_is_told(shell: Any, tmp_path: Path) -> None:
    """A local key whose policy fences keyrings must list "", for the root key; init says so, and doctor."""
    policy = tmp_path / "policy.toml"
    policy.write_text('format = "tokenbroker/kms-local-policy/v1"\nkeyrings = ["", "default"]\n')
    config = configure(tmp_path, f"local:{tmp_path / 'kms.key'}?policy={policy}")
    shell.ok("init", "--config", config)
    policy.write_text('format = "tokenbroker/kms-local-policy/v1"\nkeyrings = ["default"]\n')
    remedy = 'does not serve the root key: put "" beside the other names in its keyrings'
    assert remedy in shell.run("doctor", "--config", config).out
    (tmp_path / "broker.db").unlink()
    configure(tmp_path, f"local:{tmp_path / 'kms.key'}?policy={policy}", cluster="")
    assert remedy in shell.refused("init", "--config", config)
