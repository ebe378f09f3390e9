"""One story of a cluster and its KMS, the same over AWS KMS and over transit: from a cold start to another KMS key."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.admin.asked import NewVersion
from broker.api import probes
from broker.vault.errors import KeyDenied, KeyUnavailable

WORKERS = 200
NAMES = [f"cloud/t{number}" for number in range(10)]
DATA_KEYS = 3
SOFT_S = 60.0
TTLS = 'cache_soft_ttl = "60s"\ncache_hard_ttl = "900s"'
ACTOR = "admin:root"


class Story:
    """What the chapters share."""

    def __init__(self, *, cloud: Any, clouds: Any, wire: Any, config: Path, crew: list[Any]) -> None:
        self.cloud = cloud
        self.clouds = clouds
        self.wire = wire
        self.config = config
        self.crew = crew
        self.house: Any = None

    async def pass_time(self, seconds: float) -> None:
        await self.clouds.pass_time(self.house, seconds)

    async def ready(self) -> tuple[int, str]:
        """What a probe is told: the status, and how the KMS does."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.house.url}/readyz") as answer:
            return answer.status, (await answer.json())["checks"]["kms"]

    async def lease(self, *names: str, workers: int = 1) -> list[dict[str, str]]:
        """What each of these workers, all new to the broker, is given or told for each name; all at once."""
        async with AsyncExitStack() as stack:
            wires = [await stack.enter_async_context(self.wire.dial(self.house.url)) for _ in range(workers)]
            for wire, who in zip(wires, self.crew, strict=False):
                assert (await wire.handshake(who))["type"] == "welcome"

            async def ask(wire: Any) -> dict[str, str]:
                for number, name in enumerate(names):
                    await wire.send(type="lease", id=number, token=name)
                frames = {name: await wire.answer(number, within_s=60) for number, name in enumerate(names)}
                return {name: frame.get("value") or frame["code"] for name, frame in frames.items()}

            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(ask(wire)) for wire in wires]
            return [each.result() for each in asked]


async def test_the_story(
    *, cloud: Any, clouds: Any, wire: Any, clock: Any, house_parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cold start, outage, denial, recovery, rotation, rewrapping: nothing is lost, and the KMS is asked as little."""
    monkeypatch.setattr(probes, "REMEMBERED_S", 0.0)
    config = tmp_path / "data" / "broker.toml"
    config.parent.mkdir(mode=0o700)
    clouds.write_config(config, [await cloud.key()], more_kms=TTLS)
    await clouds.found(config)

    def serve() -> Any:
        # Workers of the story do not read while time passes, so nobody asks them to answer pings.
        return house_parts.open_house(config, monkeypatch, clock=clock, session={"heartbeat_s": 86_400.0})

    async with serve() as house:
        story = Story(cloud=cloud, clouds=clouds, wire=wire, config=config, crew=await furnish(house, wire))
    async with serve() as house:
        story.house = house
        await cold_start(story)
        async with wire.dial(house.url) as keeper:
            assert (await keeper.handshake(story.crew[0]))["type"] == "welcome"
            held = await keeper.lease(NAMES[0])
            await outage(story, keeper, held)
            await denial(story, keeper, held)
        await recovery(story)
        await another_kms_key(story)
    async with serve() as house:
        story.house = house
        await everything_opens(story)


async def furnish(house: Any, wire: Any) -> list[Any]:
    """Two hundred workers that may have ten tokens, whose values are sealed under three data keys."""
    crew = [wire.Identity(f"w{number}") for number in range(WORKERS)]
    for who in crew:
        await house.register(who, groups=("crew",))
    await house.grant("group:crew", "cloud/*", ttl_s=60, max_ttl_s=3600)
    for number, name in enumerate(NAMES):
        if number in {4, 7}:
            await house.services.keys.rotate("default", actor=ACTOR)
        await house.put(name, f"value of {name}".encode())
    return crew


def values() -> dict[str, str]:
    """What every worker is to be given."""
    return {name: f"value of {name}" for name in NAMES}


async def cold_start(story: Story) -> None:
    """All workers want all tokens at once, and nothing is cached: each data key is unwrapped once."""
    assert story.house.broker.vault.cached_keys() == 0
    story.cloud.recover()
    assert await story.lease(*NAMES, workers=WORKERS) == [values()] * WORKERS
    assert story.cloud.unwraps() == DATA_KEYS
    assert await story.ready() == (200, "ok")


async def outage(story: Story, keeper: Any, held: Any) -> None:
    """The KMS hangs up for longer than a soft TTL: what is cached serves, nothing new is sealed, probes go red."""
    house, counters = story.house, story.house.broker.vault.counters
    story.cloud.hang_up()
    await story.pass_time(SOFT_S * 1.2 + story.clouds.CALL_S + 10)
    assert await story.lease(*NAMES) == [values()]
    assert sum(counters.stale_served.values()) >= DATA_KEYS
    assert await story.ready() == (503, "failed")
    with pytest.raises(KeyUnavailable):
        await house.services.keys.rotate("default", actor=ACTOR)
    await story.pass_time(180)
    with pytest.raises(KeyUnavailable):
        await house.services.putter.put(NewVersion(token=NAMES[0], value=b"another"), actor=ACTOR)
    assert await story.lease(*NAMES) == [values()]
    assert await renewed(keeper) == {held["lease"]}
    story.cloud.recover()
    await story.pass_time(45)
    assert house.broker.vault.oldest_key_s() <= 45
    assert story.cloud.unwraps() == DATA_KEYS
    assert await story.ready() == (200, "ok")


async def denial(story: Story, keeper: Any, held: Any) -> None:
    """The KMS refuses: within a soft TTL every data key is gone, and what is asked for is refused without a reason."""
    house = story.house
    story.cloud.refuse()
    await story.pass_time(SOFT_S * 1.2 + 10)
    assert house.broker.vault.cached_keys() == 0
    assert house.broker.vault.counters.evictions["denied"] == DATA_KEYS
    async with story.wire.dial(house.url) as worker:
        assert (await worker.handshake(story.crew[1]))["type"] == "welcome"
        for name in NAMES:
            told = await worker.ask("lease", token=name)
            assert (told["type"], told["code"]) == ("error", "unavailable")
            assert "not authorized" not in told["message"]
            assert story.cloud.proxy.url not in told["message"]
    with pytest.raises(KeyDenied):
        await house.services.putter.put(NewVersion(token=NAMES[0], value=b"another"), actor=ACTOR)
    assert await story.ready() == (503, "failed")
    # What was given before lives on, which is why revoking is another act.
    assert await renewed(keeper) == {held["lease"]}


async def recovery(story: Story) -> None:
    """All workers come back at once: they are served without a restart, by one unwrap of each data key."""
    story.cloud.recover()
    await story.pass_time(6)
    assert await story.lease(*NAMES, workers=WORKERS) == [values()] * WORKERS
    assert story.cloud.unwraps() == DATA_KEYS


async def another_kms_key(story: Story) -> None:
    """Rotate, let another KMS key in, wrap and seal everything anew, and take the former keys away."""
    house = story.house
    services, authority = house.services, house.broker.authority
    (former,) = house.settings.kms.keys
    await services.keys.rotate("default", actor=ACTOR)
    await house.put(NAMES[0], b"value of cloud/t0")
    second = await story.cloud.key()
    await reload(story, second, former)
    done = await services.rewrapper.rewrap("default", after=None, limit=100, actor=ACTOR)
    assert (len(done.done), done.failed, done.remaining) == (DATA_KEYS + 1, (), 0)
    assert (await services.rewrapper.rewrap_root(actor=ACTOR)).done == ("root",)
    await house.settled()
    await reseal(house)
    active = services.keys.keyring("default").active_data_key
    for record in list(authority.data_keys):
        if record.id != active:
            await services.retirer.destroy(record.id, actor=ACTOR)
    await reload(story, second)
    retired = await services.retirer.retire(former, actor=ACTOR)
    assert (retired.data_keys, retired.root) == (1, True)
    await house.settled()
    assert await story.lease(*NAMES) == [values()]


async def everything_opens(story: Story) -> None:
    """After a restart that knows the new KMS key alone: every value opens by one unwrap, and the log verifies."""
    story.cloud.recover()
    assert await story.lease(*NAMES) == [values()]
    assert story.cloud.unwraps() == 1
    report = await story.house.verified()
    assert (report.ok, report.problems) == (True, [])


async def reload(story: Story, *keys: str) -> None:
    story.clouds.write_config(story.config, list(keys), more_kms=TTLS)
    await story.house.broker.reloading.apply(story.clouds.read(story.config))


async def reseal(house: Any) -> None:
    """Seal every value anew; the clock gives the rate its time."""
    after = None
    while True:
        done = await house.services.resealer.reseal("default", after=after, limit=100, rate_per_s=10_000, actor=ACTOR)
        assert done.failed == ()
        after = done.next
        await house.broker.clock.advance(1)
        if after is None:
            assert done.remaining == 0
            return


async def renewed(keeper: Any) -> set[str]:
    """The leases that the worker was told are renewed, of all that was pushed to it by now."""
    found: set[str] = set()
    while True:
        try:
            frame = await keeper.receive(0.1)
        except TimeoutError:
            return found
        assert frame["type"] == "renewed", frame
        found |= {each["lease"] for each in frame["leases"]}
