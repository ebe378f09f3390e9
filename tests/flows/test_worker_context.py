"""With `authorize = "kms"`, what a KMS says about a worker decides over the wire: local, AWS KMS and transit alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from broker.audit.entries import LeaseRefused
from kms.port import Caller, Wrap

SOFT_S = 60.0
FELT_S = SOFT_S * 1.2 + 5
"""A refusal is felt within this time: the soft TTL, its jitter, and what proving again may take."""
TOKEN = "judged/key"


@pytest.fixture(params=["local", "aws-kms", "transit"])
async def decider(
    *,
    request: pytest.FixtureRequest,
    deciders: Any,
    aws_standin: Any,
    bao: Any,
    bao_servers: Any,
    proxies: Any,
    aws_environment: None,
    tmp_path: Path,
) -> AsyncIterator[Any]:
    """The KMS key that decides; at first it serves no worker."""
    home = tmp_path / "decider"
    home.mkdir(mode=0o700)
    played = {
        "local": lambda: deciders.by_policy_file(home),
        "aws-kms": lambda: deciders.by_session_tags(aws_standin, proxies),
        "transit": lambda: deciders.by_policies(bao, bao_servers, proxies, home),
    }
    async with played[request.param]() as opened:
        yield opened


class Court:
    """A broker whose keyring `judged` has the deciding KMS key, and workers whose names are this test's own."""

    def __init__(self, *, house: Any, wire: Any, clouds: Any, decider: Any) -> None:
        self.house = house
        self.decider = decider
        self._wire = wire
        self._clouds = clouds
        self._run = token_hex(4)

    def name(self, short: str) -> str:
        """The name of a worker or group in this run: policies of a server outlive a test."""
        return f"{short}-{self._run}"

    async def enlist(self, *shorts: str, groups: tuple[str, ...] = ()) -> None:
        """Register workers that the broker itself would give everything."""
        for short in shorts:
            who = self._wire.Identity(self.name(short))
            await self.house.register(who, groups=tuple(self.name(group) for group in groups))
            await self.house.grant(f"worker:{who.name}", "judged/*", ttl_s=60)
            self.house.workers[short] = who

    async def allow(self, *workers: str, groups: tuple[str, ...] = ()) -> None:
        """Have the KMS serve these and no other."""
        await self.decider.allow({self.name(each) for each in workers}, {self.name(each) for each in groups})

    async def pass_time(self, seconds: float) -> None:
        await self._clouds.pass_time(self.house, seconds)


@pytest.fixture
async def court(
    *, decider: Any, config: Path, open_house: Any, clock: Any, wire: Any, clouds: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Court]:
    """The court, with one token whose value is `sealed`."""
    clouds.unhurried(monkeypatch)
    with config.open("a") as file:
        file.write(f'\n[keyrings.judged]\nkms_keys = ["{decider.uri}"]\nauthorize = "kms"\n')
        file.write(f'cache_soft_ttl = "{SOFT_S:g}s"\ncache_hard_ttl = "600s"\n')
    async with open_house(clock=clock, session={"heartbeat_s": 86_400.0}) as house:
        await house.put(TOKEN, b"sealed", keyring="judged")
        yield Court(house=house, wire=wire, clouds=clouds, decider=decider)


async def told(worker: Any) -> str:
    """The value, or the code of the refusal."""
    frame = await worker.ask("lease", token=TOKEN)
    answer: str = frame.get("value") or frame["code"]
    return answer


async def test_whom_the_kms_allows_leases_and_others_are_denied(court: Court, welcomed: Any) -> None:
    """The broker's grants are the same for both; the stranger is told no more than that its KMS refuses, on record."""
    await court.enlist("clerk", "stranger")
    await court.allow("clerk")
    async with welcomed(court.house, "clerk") as clerk, welcomed(court.house, "stranger") as stranger:
        assert await told(clerk) == "sealed"
        refused = await stranger.ask("lease", token=TOKEN)
        assert (refused["type"], refused["code"]) == ("error", "denied")
        assert "KMS" in refused["message"]
        for secret in ("127.0.0.1", "local:", "arn:", "policies", "AccessDenied"):
            assert secret not in refused["message"]
        assert await told(clerk) == "sealed"
    (entry,) = await court.house.entries_within(LeaseRefused, 1)
    assert (entry.actor, entry.token) == (f"worker:{court.name('stranger')}", TOKEN)
    assert (entry.code, entry.reason) == ("denied", "kms_denied")


async def test_a_cached_key_never_serves_another_worker(court: Court, welcomed: Any) -> None:
    """Ten allowed workers and ten strangers, all at once and again when all is cached: nobody gets another's key."""
    clerks, strangers = [f"c{number}" for number in range(10)], [f"s{number}" for number in range(10)]
    await court.enlist(*clerks, *strangers)
    await court.allow(*clerks)
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(welcomed(court.house, name))
            for pair in zip(clerks, strangers, strict=True)
            for name in pair
        ]
        for _ in range(2):
            answers = await asyncio.gather(*(told(worker) for worker in workers))
            assert answers == ["sealed", "denied"] * 10
        # Each clerk has a key of its own; besides, the broker holds one, by which it sealed.
        assert court.house.broker.vault.cached_keys() == 10 + 1


async def test_groups_count(court: Court, welcomed: Any) -> None:
    """A member of a group that the KMS serves leases; a worker of another group, or none, does not."""
    await court.enlist("member", groups=("others", "cashiers"))
    await court.enlist("outsider", groups=("others",))
    await court.enlist("loner")
    await court.allow(groups=("cashiers",))
    answers = {}
    for name in ("member", "outsider", "loner"):
        async with welcomed(court.house, name) as worker:
            answers[name] = await told(worker)
    assert answers == {"member": "sealed", "outsider": "denied", "loner": "denied"}


async def test_who_leaves_a_group_is_asked_about_anew(court: Court, welcomed: Any) -> None:
    """What was unwrapped for a member serves it no more once the broker knows it without that group."""
    await court.enlist("member", groups=("cashiers",))
    await court.allow(groups=("cashiers",))
    async with welcomed(court.house, "member") as worker:
        assert await told(worker) == "sealed"
        workers = court.house.services.workers
        await workers.update(court.name("member"), changes={"groups": ()}, actor="admin:root")
        await court.house.settled()
        assert await told(worker) == "denied"


async def test_revoking_at_the_kms_is_felt_within_the_soft_ttl(court: Court, welcomed: Any) -> None:
    """However busy the worker is; and whoever is still allowed notices nothing."""
    await court.enlist("leaver", "stayer")
    await court.allow("leaver", "stayer")
    async with welcomed(court.house, "leaver") as leaver, welcomed(court.house, "stayer") as stayer:
        assert [await told(leaver), await told(stayer)] == ["sealed", "sealed"]
        await court.allow("stayer")
        passed = 0.0
        while await told(leaver) == "sealed":
            await court.pass_time(5)
            passed += 5
            assert passed <= FELT_S + 5
            assert await told(stayer) == "sealed"
        assert await told(leaver) == "denied"
        assert court.house.broker.vault.counters.evictions["caller_denied"] == 1
        await court.allow("leaver", "stayer")
        await court.pass_time(6)
        assert await told(leaver) == "sealed"


async def test_a_flush_has_a_refusal_felt_at_once(court: Court, welcomed: Any) -> None:
    """After `key flush` the next lease asks the KMS."""
    await court.enlist("leaver")
    await court.allow("leaver")
    async with welcomed(court.house, "leaver") as leaver:
        assert await told(leaver) == "sealed"
        await court.allow()
        await court.house.services.keys.flush(actor="admin:root")
        assert await told(leaver) == "denied"


async def test_a_held_lease_lives_on_and_gets_no_new_value(court: Court, welcomed: Any) -> None:
    """Renewing needs no KMS; a rotated value is pushed to whom the KMS serves, to others when it serves them again."""
    await court.enlist("leaver", "stayer")
    await court.allow("leaver", "stayer")
    async with welcomed(court.house, "leaver") as leaver, welcomed(court.house, "stayer") as stayer:
        held = [await leaver.lease(TOKEN), await stayer.lease(TOKEN)]
        await court.allow("stayer")
        await court.pass_time(FELT_S + 5)
        await court.house.put(TOKEN, b"newer", keyring="judged")
        assert (await pushed(stayer, "rotated"))["value"] == "newer"
        await court.pass_time(20)
        frames = await everything(leaver)
        assert {frame["type"] for frame in frames} == {"renewed"}
        assert {each["lease"] for frame in frames for each in frame["leases"]} == {held[0]["lease"]}
        assert (await court.house.row(held[0]["lease"])).state == "live"
        await court.allow("leaver", "stayer")
        await court.pass_time(10)
        assert (await pushed(leaver, "rotated"))["value"] == "newer"


@pytest.mark.parametrize("decider", ["aws-kms", "transit"], indirect=True)
async def test_each_worker_costs_one_session_and_one_unwrap(court: Court, welcomed: Any) -> None:
    """However many of its tokens have a data key in common, and however often it comes, within a soft TTL."""
    crew = [f"c{number}" for number in range(10)]
    await court.enlist(*crew)
    await court.allow(*crew)
    tokens = [f"judged/t{number}" for number in range(5)]
    for token in tokens:
        await court.house.put(token, b"sealed", keyring="judged")
    proxy = court.decider.proxy
    proxy.forget()
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(welcomed(court.house, name)) for name in crew]
        for _ in range(3):
            for worker in workers:
                for number, token in enumerate(tokens):
                    await worker.send(type="lease", id=2000 + number, token=token)
            for worker in workers:
                assert {(await worker.answer(2000 + number))["value"] for number in range(len(tokens))} == {"sealed"}
    unwraps = sum(count for name, count in proxy.counts.items() if "decrypt" in name.lower())
    assert (unwraps, proxy.total - unwraps) == (len(crew), len(crew))


class Thinking:
    """A KMS key that keeps whoever asks for a worker waiting until `answer` is set."""

    def __init__(self, key: Any) -> None:
        self._key = key
        self.answer = asyncio.Event()
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._key, name)

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        if caller is not None:
            self.asked += 1
            await self.answer.wait()
        plain: bytes = await self._key.unwrap(wrap, context, caller)
        return plain


async def test_who_has_just_joined_hears_nothing_of_before(
    *, config: Path, open_house: Any, wire: Any, clouds: Any, deciders: Any, tmp_path: Path, welcomed: Any
) -> None:
    """A request that came after the worker joined a group does not share the answer to one that came before."""
    thinking: list[Thinking] = []

    def around(key: Any) -> Any:
        thinking.append(Thinking(key))
        return thinking[-1]

    async with deciders.by_policy_file(tmp_path) as decider:
        with config.open("a") as file:
            file.write(f'\n[keyrings.judged]\nkms_keys = ["{decider.uri}"]\nauthorize = "kms"\n')
        async with open_house(kms=around) as house:
            await house.put(TOKEN, b"sealed", keyring="judged")
            court = Court(house=house, wire=wire, clouds=clouds, decider=decider)
            await court.enlist("joiner")
            await court.allow(groups=("cashiers",))
            async with welcomed(house, "joiner") as worker:
                await worker.send(type="lease", id=1001, token=TOKEN)
                await house.until(lambda: thinking[-1].asked == 1)
                groups = (court.name("cashiers"),)
                await house.services.workers.update(
                    court.name("joiner"), changes={"groups": groups}, actor="admin:root"
                )
                await house.settled()
                await worker.send(type="lease", id=1002, token=TOKEN)
                await house.until(lambda: thinking[-1].asked == 2)
                thinking[-1].answer.set()
                assert (await worker.answer(1001))["code"] == "denied"
                assert (await worker.answer(1002))["value"] == "sealed"


async def pushed(worker: Any, kind: str) -> Any:
    """The next push of this type."""
    while True:
        frame = await worker.push()
        if frame["type"] == kind:
            return frame


async def everything(worker: Any) -> list[Any]:
    """All that was pushed by now."""
    frames, worker.pushes = worker.pushes, []
    while True:
        try:
            frames.append(await worker.receive(0.1))
        except TimeoutError:
            return frames
