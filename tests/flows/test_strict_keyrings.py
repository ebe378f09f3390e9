"""A strict keyring over a real KMS: what keeping nothing costs in calls, and how soon an outage is felt."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any


async def test_a_strict_keyring_asks_for_each_second_of_use(
    *, cloud: Any, config: Path, open_house: Any, prepare: Any, welcomed: Any, clock: Any
) -> None:
    """Who comes together, or within a second, shares one unwrap; after it nothing is left, and an outage is felt."""
    with config.open("a") as file:
        file.write(f'\n[keyrings.strict]\nkms_keys = ["{await cloud.key()}"]\nstrict = true\n')
    async with open_house(clock=clock, session={"heartbeat_s": 86_400.0}) as house, AsyncExitStack() as stack:
        await prepare(house)
        await house.put("github/strict", b"now", keyring="strict")
        await house.elapse(2)
        workers = [await stack.enter_async_context(welcomed(house)) for _ in range(20)]
        cloud.recover()
        for worker in workers:
            await worker.send(type="lease", id=1000, token="github/strict")
        assert {(await worker.answer(1000))["value"] for worker in workers} == {"now"}
        assert (await workers[0].lease("github/strict"))["value"] == "now"
        assert cloud.unwraps() == 1
        for seconds in range(3):
            await house.elapse(2)
            assert house.broker.vault.cached_keys() == 1  # that of the default keyring
            assert (await workers[0].lease("github/strict"))["value"] == "now"
            assert cloud.unwraps() == 2 + seconds
        await house.elapse(2)
        cloud.hang_up()
        assert (await workers[0].ask("lease", token="github/strict"))["code"] == "unavailable"
