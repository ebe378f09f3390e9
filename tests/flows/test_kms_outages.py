"""A KMS that does not answer, or says no: what is cached serves on, what is not is refused, nobody waits in line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kms.errors import Denied, Unavailable
from kms.port import Caller, Wrap


class Outage:
    """A real KMS key that can be told not to answer, to refuse, or to take its time, once the broker has started."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.asked = 0

    def around(self, key: Any) -> Any:
        self.key = key
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.key, name)

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        plain: bytes = await self.key.unwrap(wrap, context, caller)
        return plain


@pytest.fixture
def outage() -> Outage:
    """The KMS of a house, and a way to break it."""
    return Outage()


async def test_with_a_warm_cache_grants_continue(open_house: Any, prepare: Any, welcomed: Any, outage: Outage) -> None:
    """New workers, sessions and tokens under a data key in memory do not notice the outage."""
    async with open_house(kms=outage.around) as house:
        await prepare(house)
        async with welcomed(house) as worker:
            await worker.lease("github/ci")
            outage.error = Unavailable("silent")
        async with welcomed(house) as worker:
            assert (await worker.lease("github/ci"))["value"] == "s3cret"


@pytest.mark.parametrize("error", [Unavailable("silent"), Denied("policy")], ids=["unavailable", "denied"])
async def test_with_a_cold_cache_nothing_is_granted(
    open_house: Any, prepare: Any, welcomed: Any, outage: Outage, error: Exception
) -> None:
    """The worker is refused with a code that says whether to come back; when the KMS recovers it is served."""
    async with open_house(kms=outage.around) as house:
        await prepare(house)
        async with welcomed(house) as worker:
            house.broker.vault.flush()
            outage.error = error
            refused = await worker.ask("lease", token="github/ci")
            assert refused["code"] in {"unavailable", "denied"}
            assert "policy" not in refused["message"]
            assert await house.leases() == []
            outage.error = None
            house.broker.vault.flush()
            assert (await worker.lease("github/ci"))["value"] == "s3cret"


async def test_a_slow_kms_delays_nobody_else(open_house: Any, prepare: Any, welcomed: Any, outage: Outage) -> None:
    """While one data key is being asked for, tokens of another keyring are granted."""
    async with open_house(kms=outage.around) as house:
        await prepare(house)
        await house.services.keys.add_keyring("other", kms_keys=(), authorize="broker", actor="admin:root")
        await house.put("github/other", b"quick", keyring="other")
        async with welcomed(house) as worker:
            house.broker.vault.flush()
            await worker.lease("github/other")
            outage.hold = asyncio.Event()
            asked = outage.asked
            for number in range(50):
                await worker.send(type="lease", id=1000 + number, token="github/ci")
            await house.until(lambda: outage.asked == asked + 1)
            assert (await worker.lease("github/other"))["value"] == "quick"
            outage.hold.set()
            assert {(await worker.answer(1000 + number))["value"] for number in range(50)} == {"s3cret"}
            assert outage.asked == asked + 1


async def test_a_strict_keyring_serves_and_keeps_nothing(
    config: Path, open_house: Any, prepare: Any, welcomed: Any, outage: Outage
) -> None:
    """Whoever waited for its data key is served by one call; within seconds it is wiped, and an outage is felt."""
    with config.open("a") as file:
        file.write("\n[keyrings.strict]\nstrict = true\n")
    async with open_house(kms=outage.around) as house:
        await prepare(house)
        await house.put("github/strict", b"now", keyring="strict")
        async with welcomed(house) as worker:
            house.broker.vault.flush()
            outage.hold = asyncio.Event()
            asked = outage.asked
            for number in range(20):
                await worker.send(type="lease", id=1000 + number, token="github/strict")
            await house.until(lambda: outage.asked == asked + 1)
            outage.hold.set()
            assert {(await worker.answer(1000 + number))["value"] for number in range(20)} == {"now"}
            await house.until(lambda: house.broker.vault.cached_keys() == 0, within_s=10)
            outage.error = Unavailable("silent")
            assert (await worker.ask("lease", token="github/strict"))["code"] == "unavailable"


async def test_resuming_serves_what_it_can(open_house: Any, prepare: Any, welcomed: Any, outage: Outage) -> None:
    """A lease whose new value cannot be opened now is listed as gone; the others are resumed, and nothing is lost."""
    async with open_house(kms=outage.around) as house:
        await prepare(house)
        await house.services.keys.add_keyring("other", kms_keys=(), authorize="broker", actor="admin:root")
        await house.put("github/other", b"one", keyring="other")
        async with welcomed(house) as worker:
            leases = [await worker.lease("github/ci"), await worker.lease("github/other")]
        await house.until(lambda: len(house.broker.sessions) == 0)
        await house.put("github/other", b"two")
        house.broker.vault.flush()
        outage.error = Unavailable("silent")
        async with welcomed(house) as worker:
            stated = [{"lease": granted["lease"], "version": 1} for granted in leases]
            resumed = await worker.ask("resume", leases=stated)
            assert [item["lease"] for item in resumed["live"]] == [leases[0]["lease"]]
            assert resumed["gone"] == [{"lease": leases[1]["lease"], "code": "gone"}]
            outage.error = None
            house.broker.vault.flush()
            resumed = await worker.ask("resume", leases=[stated[1]])
            assert [frame["value"] for frame in resumed["rotated"]] == ["two"]


async def test_a_rotation_whose_value_cannot_be_opened_is_pushed_later(
    open_house: Any, prepare: Any, welcomed: Any, outage: Outage
) -> None:
    """The holder keeps the version it has, and gets the new one when the KMS answers again."""
    async with open_house(kms=outage.around) as house:
        await prepare(house)
        async with welcomed(house) as worker:
            await worker.lease("github/ci")
            put = house.services.putter.put
            await put(_new("github/ci", b"two"), actor="admin:root")
            house.broker.vault.flush()
            outage.error = Unavailable("silent")
            await house.settled()
            worker.pushes.clear()
            assert await worker.silent(0.3)
            outage.error = None
            house.broker.vault.flush()
            assert (await worker.push(within_s=3))["value"] == "two"


def _new(token: str, value: bytes) -> Any:
    from broker.admin.asked import NewVersion

    return NewVersion(token=token, value=value)
