"""`key` and `admin`: data keys by name, and operators whose credentials go into files."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any


def test_a_rotated_keyring_seals_with_another_key_and_opens_old_values(house: Any) -> None:
    """After rotate the keyring names a fresh data key, the one before is open, and old values are revealed."""
    house.shell.ok("token", "put", "keys/a", stdin=b"before")
    (before,) = [key for key in house.shell.json("key", "list", "--keyring", "default") if key["state"] == "active"]
    ring = house.shell.json("key", "rotate", "default")
    states = {key["data_key"]: key["state"] for key in house.shell.json("key", "list")}
    assert ring["active_data_key"] != before["data_key"]
    assert (states[before["data_key"]], states[ring["active_data_key"]]) == ("open", "active")
    assert house.shell.json("key", "flush") == {"flushed": True}
    assert house.shell.ok("token", "reveal", "keys/a").out == "before"


def test_a_keyring_that_is_not_there_is_named(house: Any) -> None:
    """One line, exit code 1."""
    assert "nokeyring" in house.shell.refused("key", "rotate", "nokeyring")


def test_an_admin_gets_a_profile_and_only_its_roles(house: Any, tmp_path: Path) -> None:
    """The profile (0600) works at once, for what its role allows; the credential is printed nowhere."""
    out = tmp_path / "ada.toml"
    ran = house.shell.ok("admin", "add", "ada", "--role", "reader", "--out", out, "--json")
    assert ran.document["profile"] == str(out)
    assert "tba_" not in ran.out + ran.err
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    house.shell.ok("token", "list", "--profile", out)
    assert "needs one of the roles" in house.shell.run("token", "put", "a/b", "--profile", out, stdin=b"x").complaint


def test_a_credential_is_replaced_and_an_admin_switched_off(house: Any, tmp_path: Path) -> None:
    """The one before stops; a disabled and a removed admin are refused."""
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    house.shell.ok("admin", "add", "bob", "--role", "operator", "--role", "auditor", "--out", first)
    house.shell.ok("admin", "replace-credential", "bob", "--out", second)
    house.shell.refused("token", "list", "--profile", first)
    house.shell.ok("token", "list", "--profile", second)
    assert house.shell.json("admin", "disable", "bob")["disabled"] is True
    house.shell.refused("token", "list", "--profile", second)
    assert house.shell.json("admin", "enable", "bob")["disabled"] is False
    house.shell.ok("admin", "remove", "bob")
    assert "bob" not in [admin["admin"] for admin in house.shell.json("admin", "list")]


def test_no_admin_is_made_whose_credential_could_not_be_kept(house: Any, tmp_path: Path) -> None:
    """With a file in the way nothing is created."""
    (tmp_path / "there.toml").write_text("")
    house.shell.refused("admin", "add", "eve", "--role", "admin", "--out", tmp_path / "there.toml")
    assert "eve" not in [admin["admin"] for admin in house.shell.json("admin", "list")]


def test_the_last_admin_stays(house: Any) -> None:
    """Nobody can lock everybody out."""
    assert "last one" in house.shell.refused("admin", "disable", "root")
