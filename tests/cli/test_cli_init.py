"""`init`: makes what is missing, keeps what is there, refuses what would lose something."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_init_says_where_everything_is(shell: Any, tmp_path: Path) -> None:
    """The document names the cluster, the configuration that pins it, and the profile."""
    told = shell.json("init", "--data-dir", tmp_path / "d")
    config = tomllib.loads(Path(told["config"]).read_text())
    assert told["config"] == str(tmp_path / "d" / "broker.toml")
    assert told["profile"] == str(tmp_path / "d" / "profile.toml")
    assert config["cluster"]["id"] == told["cluster_id"] != ""


def test_secrets_are_for_their_owner_alone(folder: Path) -> None:
    """Folder 0700; key, database, configuration and profile 0600."""
    assert _mode(folder) == 0o700
    for name in ("kms.key", "broker.db", "broker.toml", "profile.toml"):
        assert _mode(folder / name) == 0o600, name


def test_init_again_changes_no_file(shell: Any, folder: Path) -> None:
    """A second run tells the same cluster and leaves key, profile, configuration and audit key byte for byte."""
    names = ("kms.key", "profile.toml", "broker.toml", "audit.vkey")
    before = [(folder / name).read_bytes() for name in names]
    told = shell.ok("init", "--data-dir", folder)
    assert [(folder / name).read_bytes() for name in names] == before
    assert told.out.count("there already") == 7


def test_a_configuration_of_ones_own_keeps_its_lines(shell: Any, tmp_path: Path) -> None:
    """`init --config` adds cluster.id and nothing else: comments, order and mode stay."""
    config = tmp_path / "own.toml"
    text = (
        "# ours\n[server]\nlisten = '127.0.0.1:0' # any\n\n[cluster]\n# the pin\n\n[storage]\n"
        f'url = "sqlite:///{tmp_path}/own.db"\n[kms]\nkeys = ["local:{tmp_path}/own.key"]\n'
    )
    config.write_text(text)
    config.chmod(0o640)
    told = shell.json("init", "--config", config, "--data-dir", tmp_path / "d")
    after = config.read_text()
    line = next(line for line in after.splitlines() if told["cluster_id"] in line)
    assert after.replace(f"{line}\n", "") == text
    assert (_mode(config), told["config"]) == (0o640, str(config))
    assert (tmp_path / "own.key").exists()
    assert (tmp_path / "d" / "profile.toml").exists()


def test_a_lost_key_file_is_never_replaced(shell: Any, folder: Path) -> None:
    """With a database and no key file, init refuses: a fresh key would open nothing in it."""
    (folder / "kms.key").unlink()
    assert "restore it from its backup" in shell.refused("init", "--data-dir", folder)
    assert not (folder / "kms.key").exists()


def test_a_lost_configuration_is_never_replaced(shell: Any, folder: Path) -> None:
    """With a database and no configuration, init refuses: the pin would be invented."""
    (folder / "broker.toml").unlink()
    assert "restore the configuration" in shell.refused("init", "--data-dir", folder)


def test_a_database_is_not_believed_about_its_cluster(shell: Any, folder: Path, tmp_path: Path) -> None:
    """A configuration without cluster.id is not pinned to whatever cluster the database holds."""
    config = tmp_path / "other.toml"
    lines = (folder / "broker.toml").read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith("id =")))
    complaint = shell.refused("init", "--config", config, "--data-dir", tmp_path / "d")
    assert "does not pin" in complaint


def test_an_empty_database_is_not_taken_for_a_pinned_cluster(shell: Any, folder: Path) -> None:
    """A configuration that pins a cluster is not given another one because the database is gone."""
    (folder / "broker.db").unlink()
    assert "holds no cluster" in shell.refused("init", "--data-dir", folder)


def test_a_passphrase_seals_the_key_file(shell: Any, serve_in: Any, tmp_path: Path) -> None:
    """With --passphrase-file the key file holds no key in clear, and the broker starts with it."""
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse")
    secret.chmod(0o600)
    data = tmp_path / "d"
    shell.ok("init", "--data-dir", data, "--passphrase-file", secret)
    assert "sealed_private_key" in (data / "kms.key").read_text()
    with serve_in(data) as standing:
        standing.shell.ok("token", "list")


def test_a_lost_profile_is_made_anew_on_demand_only(shell: Any, serve_in: Any, folder: Path) -> None:
    """Init leaves a missing profile alone; with --new-credential there is one that works, and the old one stops."""
    old = (folder / "profile.toml").rename(folder / "old.toml")
    assert shell.json("init", "--data-dir", folder)["profile"] is None
    assert not (folder / "profile.toml").exists()
    shell.ok("init", "--data-dir", folder, "--new-credential")
    with serve_in(folder) as standing:
        standing.shell.ok("token", "list")
        assert "credential" in standing.shell.refused("token", "list", "--profile", old)


def test_init_beside_a_running_broker_is_no_failure(shell: Any, house: Any) -> None:
    """Provisioning may run init again at any time: with nothing missing it succeeds while the broker serves."""
    told = shell.json("init", "--data-dir", house.folder)
    assert told["profile"] == str(house.folder / "profile.toml")


@pytest.mark.parametrize(
    ("options", "said"),
    [((), "name a folder"), (("--config", "f", "--passphrase-file", "p"), "names the passphrase file")],
)
def test_init_wants_to_know_where(shell: Any, options: tuple[str, ...], said: str) -> None:
    """Without a folder or a configuration it is a usage error, exit code 2."""
    ran = shell.run("init", *options)
    assert ran.code == 2
    assert said in ran.err


def test_a_file_in_the_place_of_the_folder_is_refused(shell: Any, tmp_path: Path) -> None:
    """A data directory that is a file is refused in one line."""
    (tmp_path / "d").write_text("")
    assert "is not a folder" in shell.refused("init", "--data-dir", tmp_path / "d")


def test_a_missing_configuration_is_not_made_up(shell: Any, tmp_path: Path) -> None:
    """--config names a file that exists; a typing error must not make an installation."""
    assert "there is no configuration" in shell.refused("init", "--config", tmp_path / "x.toml")
