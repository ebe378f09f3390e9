"""`key rewrap`, `key destroy`, `key retire`: what is done is counted, what stands in the way is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.cli.rewrapping import estimate


def _active(house: Any) -> str:
    keys = house.shell.json("key", "list", "--keyring", "default")
    (active,) = [key["data_key"] for key in keys if key["state"] == "active"]
    return str(active)


def test_values_leave_a_former_data_key_which_can_be_destroyed_then(house: Any) -> None:
    """rotate, destroy refused with a list, rewrap --values, destroy; the values are what they were."""
    for number in range(3):
        house.shell.ok("token", "put", f"00-rewrap/t{number}", stdin=b"kept")
    old = _active(house)
    assert "rotate" in house.shell.refused("key", "destroy", old)
    house.shell.ok("key", "rotate", "default")
    assert "00-rewrap/t0 version 1" in house.shell.refused("key", "destroy", old)
    (total,) = house.shell.json("key", "rewrap", "default", "--values", "--rate", "10000")
    assert total["keyring"] == "default"
    assert total["values"] >= 3
    assert (total["remaining"], total["failed"], total["failures"]) == (0, 0, [])
    assert house.shell.json("key", "destroy", old)["state"] == "destroyed"
    assert house.shell.ok("token", "reveal", "00-rewrap/t1").out == "kept"
    (versions,) = house.shell.json("token", "versions", "00-rewrap/t1")
    assert (versions["version"], versions["stage"], versions["data_key"]) == (1, "current", _active(house))


def test_all_keyrings_and_the_root_key_are_looked_at(house: Any) -> None:
    """Without a keyring each has its line, the root key too; what is in line already is counted as nothing."""
    house.shell.ok("key", "rewrap")
    ran = house.shell.ok("key", "rewrap")
    assert ran.out.splitlines() == ["default: 0 keys wrapped anew", "(root key): 0 keys wrapped anew"]


def test_the_list_says_which_kms_keys_wrap_and_whether_all_is_in_line(house: Any) -> None:
    """Each data key with its KMS keys and their versions."""
    keys = house.shell.json("key", "list")
    assert all(key["wraps"][0]["kms_key"].startswith("local:") for key in keys if key["state"] != "destroyed")
    assert not any(key["needs_rewrap"] for key in keys)
    assert "kms.key (1)" in house.shell.ok("key", "list").out


def test_a_kms_key_in_use_is_not_retired_and_an_unknown_one_is_nowhere(house: Any) -> None:
    """The message says what to do first; a KMS key that wraps nothing is gone already."""
    (kms_key,) = {wrap["kms_key"] for key in house.shell.json("key", "list") for wrap in key["wraps"]}
    assert "take it out on every replica" in house.shell.refused("key", "retire", kms_key)
    done = house.shell.json("key", "retire", "local:/never/there.key")
    assert (done["data_keys"], done["root"]) == (0, False)


def test_what_is_not_there_is_named(house: Any) -> None:
    """A keyring and a data key."""
    assert "nokeyring" in house.shell.refused("key", "rewrap", "nokeyring")
    assert "nokey" in house.shell.refused("key", "destroy", "nokey")


def test_what_a_silent_kms_key_holds_up_is_named(folder: Path, serve_in: Any) -> None:
    """Exit code 1, what was left with the reason, and one line that says what to do; nothing was changed."""
    with serve_in(folder) as house:
        before = house.shell.json("key", "list")
        (folder / "kms.key").rename(folder / "away")
        ran = house.shell.run("key", "rewrap", "--json")
        assert ran.code == 1
        assert [total["failed"] for total in ran.document] == [1, 1]
        assert ran.complaint.startswith("2 keys or values were left as they were")
        assert f"{before[0]['data_key']}: " in ran.err
        assert "root: " in ran.err
        (folder / "away").rename(folder / "kms.key")
        assert house.shell.json("key", "list") == before


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({"moved": 0, "took_s": 60.0, "left": 500, "counted_all": True}, "500 left"),
        ({"moved": 90, "took_s": 1.0, "left": 500, "counted_all": True}, "500 left"),
        ({"moved": 100, "took_s": 10.0, "left": 500, "counted_all": True}, "500 left, about 50 s"),
        ({"moved": 100, "took_s": 10.0, "left": 6000, "counted_all": True}, "6000 left, about 10 min"),
        ({"moved": 100, "took_s": 10.0, "left": 20_000, "counted_all": False}, "at least 20000 left"),
        ({"moved": 100, "took_s": 10.0, "left": 0, "counted_all": True}, "0 left"),
    ],
)
def test_an_estimate_is_made_only_of_what_is_known(known: Any, said: str) -> None:
    """No time without a rate that was measured for a while, and none while not all was counted."""
    assert estimate(**known) == said
