"""One replica drives rotations for all; when it dies, another one goes on with them where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TOKEN = "crm/key"


async def test_a_dead_driver_is_followed_by_another_replica(
    *, shared: Path, serving: Any, clusters: Any, crms: Any, house_parts: Any, tmp_path: Path
) -> None:
    """kill -9 of the replica that drives, while it sets a value: the other one finishes the same rotation."""
    crm = crms.Crm(tmp_path / "crm")
    crm.accept("first")
    crm.hold("set")
    environ = {"rotation__commands": str(crm.program)}
    async with clusters.running(shared, serving, one=environ) as cluster:
        await cluster.must("POST", f"/v1/tokens/{TOKEN}/-/versions", {"value": "first"})
        policy = {"rotator": "command", "overlap_s": 0, "settings": {"program": str(crm.program)}}
        await cluster.must("POST", f"/v1/rotations/{TOKEN}", policy)
        await cluster.must("POST", f"/v1/rotations/{TOKEN}/-/run", {})
        await house_parts.until(lambda: "begin set" in crm.calls)
        before = (await cluster.must("GET", f"/v1/rotations/{TOKEN}"))["state"]
        await cluster.start("two", **environ)
        await cluster.kill("one")
        crm.let_go("set")

        async def ended() -> bool:
            state = (await cluster.must("GET", f"/v1/rotations/{TOKEN}", of="two"))["state"]
            return bool(state["step"] == "idle")

        await house_parts.until(ended, within_s=60)
        state = (await cluster.must("GET", f"/v1/rotations/{TOKEN}", of="two"))["state"]
        assert (state["rotation"], state["last_outcome"]) == (before["rotation"], "finished")
        assert crm.calls.count("begin create") == 1
        value = (await cluster.must("POST", f"/v1/tokens/{TOKEN}/-/reveal", {}, of="two"))["value"]
        assert crm.keys == {value}
