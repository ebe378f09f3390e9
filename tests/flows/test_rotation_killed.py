"""kill -9 in each step of a rotation: it goes on from there, ends with one new current version, and leaves no other."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

TOKEN = "crm/key"
POLICY = {"rotator": "command", "overlap_s": 0, "deadline_s": 60, "call_s": 30}


@pytest.mark.parametrize("step", ["create", "set", "test", "finish"])
async def test_a_kill_in_each_step_ends_in_a_finished_rotation(
    *, step: str, config: Any, founded: Any, serving: Any, crms: Any, house_parts: Any, tmp_path: Any
) -> None:
    """Killed while the rotator is at the step: in the end one value is current, and alone accepted."""
    crm = crms.Crm(tmp_path / "crm")
    crm.accept("first")
    crm.hold(step)
    log = config.parent / "serve.log"
    async with aiohttp.ClientSession() as http:
        operator = crms.Operator(founded.profile, http)
        async with serving(config, log, rotation__commands=str(crm.program)) as broker:
            operator.url = broker.url
            await operator.ask("POST", f"/v1/tokens/{TOKEN}/-/versions", {"value": "first"})
            policy = {**POLICY, "settings": {"program": str(crm.program)}}
            await operator.ask("POST", f"/v1/rotations/{TOKEN}", policy)
            await operator.ask("POST", f"/v1/rotations/{TOKEN}/-/run", {})
            await house_parts.until(lambda: f"begin {step}" in crm.calls)
            await broker.kill()
        crm.let_go(step)
        await house_parts.until(lambda: crm.idle)
        async with serving(config, log, rotation__commands=str(crm.program)) as broker:
            operator.url = broker.url

            async def ended() -> bool:
                return bool((await operator.state(TOKEN))["step"] == "idle")

            await house_parts.until(ended)
            state = await operator.state(TOKEN)
            assert (state["last_outcome"], state["last_version"], state["error"]) == ("finished", 2, "")
            assert await operator.stages(TOKEN) == {1: "retired", 2: "current"}
            assert crm.keys == {await operator.value(TOKEN)}


async def test_a_rotator_that_tells_what_it_knows_is_not_quoted(
    *, config: Any, founded: Any, serving: Any, crms: Any, house_parts: Any, tmp_path: Any
) -> None:
    """What a program prints of values as it fails is in no log, record, number or entry; mended, it gets on."""
    crm = crms.Crm(tmp_path / "crm")
    crm.accept("canary-of-old")
    crm.fail("set", "canary-of-words")
    log = config.parent / "serve.log"
    async with (
        aiohttp.ClientSession() as http,
        serving(config, log, rotation__commands=str(crm.program)) as broker,
    ):
        operator = crms.Operator(founded.profile, http)
        operator.url = broker.url
        await operator.ask("POST", f"/v1/tokens/{TOKEN}/-/versions", {"value": "canary-of-old"})
        await operator.ask("POST", f"/v1/rotations/{TOKEN}", {**POLICY, "settings": {"program": str(crm.program)}})
        await operator.ask("POST", f"/v1/rotations/{TOKEN}/-/run", {})

        async def failed_twice() -> bool:
            return bool((await operator.state(TOKEN))["attempt"] > 2)

        await house_parts.until(failed_twice)
        state = await operator.state(TOKEN)
        assert state["step"] == "set"
        assert state["stuck_since"] is not None
        assert "exit code 1" in state["error"]
        assert await operator.value(TOKEN) == "canary-of-old"
        (made,) = crm.keys - {"canary-of-old"}
        shown = [
            str(await operator.ask("GET", f"/v1/rotations/{TOKEN}")),
            str(await operator.ask("GET", "/v1/audit/entries?limit=200")),
            await (await http.get(f"{broker.url}/metrics")).text(),
            log.read_text(),
        ]
        told = "\n".join(shown)
        assert [word for word in ("canary-of-old", "canary-of-words", made) if word in told] == []
        crm.mend("set")
        await operator.ask("POST", f"/v1/rotations/{TOKEN}/-/pause")
        await operator.ask("POST", f"/v1/rotations/{TOKEN}/-/resume")

        async def ended() -> bool:
            return bool((await operator.state(TOKEN))["step"] == "idle")

        await house_parts.until(ended)
        assert crm.keys == {made} == {await operator.value(TOKEN)}
    assert "canary" not in log.read_text()
