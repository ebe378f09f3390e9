"""`token pool`: from its making to its end, as an operator types it."""

from __future__ import annotations

from typing import Any


def test_a_pool_from_its_making_to_its_end(house: Any) -> None:
    """Each command says what is then, to people and as JSON."""
    shell = house.shell
    for name in ("pooled/1", "pooled/2", "pooled/3"):
        shell.ok("token", "put", name, stdin=b"secret")
    alone = ("--witnesses", "1")
    members = ("--member", "pooled/1", "--member", "pooled/2")
    made = shell.json("token", "pool", "set", "pooled/all", *members, "--max-leases", "2", "--cool-down", "1m", *alone)
    assert (made["members"], made["leases_max"], made["cool_down_s"]) == (["pooled/1", "pooled/2"], 2, 60)
    assert made["witnesses"] == 1
    assert "pooled/all" in [pool["token"] for pool in shell.json("token", "pool", "list")]
    assert "pooled/3" in shell.ok("token", "pool", "add-member", "pooled/all", "pooled/3").out
    assert "pooled/3" not in shell.ok("token", "pool", "remove-member", "pooled/all", "pooled/3").out
    shell.ok("token", "pool", "quarantine", "pooled/all", "pooled/1", "--reason", "locked")
    shown = shell.json("token", "pool", "show", "pooled/all")
    assert [member["health"] for member in shown["members"]] == ["quarantined", "well"]
    assert "locked" in shell.ok("token", "pool", "show", "pooled/all").out
    shell.ok("token", "pool", "release", "pooled/all", "pooled/1")
    assert "member of pool pooled/all" in shell.refused("token", "delete", "pooled/1")
    assert "is a pool" in shell.refused("token", "put", "pooled/all", stdin=b"secret")
    shell.ok("token", "pool", "delete", "pooled/all")
    assert "no such pool" in shell.refused("token", "pool", "show", "pooled/all")
