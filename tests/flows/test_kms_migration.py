"""A serving broker moves from a key file to AWS KMS and on to transit, under load, and is killed once on the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

WORKERS = 4
COMMAND = [sys.executable, "-m", "broker.cli.main"]
PATIENCE_S = 60.0


class Load:
    """Workers that lease and give back without a pause. url: where; given: how many leases; refused: what went wrong.

    values: what each token may be just now.
    """

    def __init__(self, *, until: Any, wire: Any, crew: list[Any], values: dict[str, set[str]]) -> None:
        self._until = until
        self._wire = wire
        self._crew = crew
        self.values = values
        self.url = ""
        self.given = 0
        self.refused: list[Any] = []

    @asynccontextmanager
    async def working(self, url: str) -> AsyncIterator[None]:
        """All workers work there while the context lasts; whatever ends their connections ends them."""
        self.url = url
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._work(who)) for who in self._crew]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    async def goes_on(self) -> None:
        """Return when every token has been leased a few times more."""
        enough = self.given + 5 * len(self.values)
        await self._until(lambda: self.given >= enough or bool(self.refused), PATIENCE_S)

    async def _work(self, who: Any) -> None:
        with contextlib.suppress(self._wire.Closed, aiohttp.ClientError, ConnectionError):
            async with self._wire.dial(self.url) as worker:
                welcome = await worker.handshake(who)
                if welcome["type"] != "welcome":
                    self.refused.append(welcome)
                    return
                while True:
                    await self._one_lease(worker)

    async def _one_lease(self, worker: Any) -> None:
        token = secrets.choice(list(self.values))
        before = self.values[token]
        frame = await worker.ask("lease", token=token)
        if frame["type"] != "granted" or frame["value"] not in before | self.values[token]:
            self.refused.append(frame)
            return
        self.given += 1
        await worker.ask("release", leases=[frame["lease"]])


class Operator:
    """Whoever edits the configuration and runs `tokenbroker`."""

    def __init__(self, *, until: Any, config: Path, clouds: Any, broker: Any) -> None:
        self._until = until
        self._config = config
        self._clouds = clouds
        self._broker = broker

    async def reload(self, *keys: str) -> None:
        """Name these KMS keys, send SIGHUP, and wait for what the log says of it."""
        before = self._told().count("configuration_reloaded")
        self._clouds.write_config(self._config, list(keys))
        os.kill(self._broker.pid, signal.SIGHUP)
        await self._until(lambda: self._told().count("configuration_reloaded") > before, PATIENCE_S)
        assert "configuration_refused" not in self._told()

    async def run(self, *words: str, given: str = "") -> str:
        """What a command prints; it must succeed."""
        profile = self._config.parent / "profile.toml"
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *words,
            *("--url", self._broker.url, "--profile", str(profile)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate(given.encode())
        assert process.returncode == 0, (words, out, err)
        return out.decode()

    async def wrapped_by(self) -> set[str]:
        """The KMS keys that wrap some data key."""
        listed = json.loads(await self.run("key", "list", "--json"))
        return {wrap["kms_key"] for key in listed for wrap in key["wraps"]}

    def _told(self) -> str:
        text: str = self._broker.output.read_text()
        return text


@pytest.mark.timeout(600)  # a dozen commands, each in an interpreter of its own
async def test_a_serving_broker_moves_from_a_file_to_aws_to_transit(
    *,
    clouds: Any,
    moto: Any,
    bao: Any,
    bao_servers: Any,
    proxies: Any,
    house_parts: Any,
    wire: Any,
    serving: Any,
    aws_environment: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No lease is refused, no value is lost, and nothing that was left behind is needed any more."""
    config, kms_key = tmp_path / "data" / "broker.toml", tmp_path / "data" / "kms.key"
    config.parent.mkdir(mode=0o700)
    (tmp_path / "transit").mkdir(mode=0o700)
    local = f"local:{kms_key}"
    clouds.write_config(config, [local])
    await clouds.found(config)
    load = await furnished(house_parts, config, monkeypatch, wire)
    log = tmp_path / "serve.log"
    async with AsyncExitStack() as stack:
        transit = await stack.enter_async_context(clouds.transit(bao, bao_servers, proxies, tmp_path / "transit"))
        async with clouds.aws(moto, proxies) as aws:
            at_aws, at_transit = await aws.key(), await transit.key()
            async with serving(config, log) as broker, load.working(broker.url):
                operator = Operator(until=house_parts.until, config=config, clouds=clouds, broker=broker)
                await load.goes_on()
                await operator.reload(at_aws, local)
                await put(operator, load, "between reload and rewrap")
                await load.goes_on()
                await broker.kill()
            async with serving(config, log) as broker, load.working(broker.url):
                operator = Operator(until=house_parts.until, config=config, clouds=clouds, broker=broker)
                await operator.run("key", "rewrap")
                await operator.reload(at_aws)
                await operator.run("key", "retire", local)
                kms_key.unlink()
                await operator.run("key", "flush")
                await load.goes_on()
                assert await operator.wrapped_by() == {at_aws}
                await put(operator, load, "at AWS")

                await operator.reload(at_transit, at_aws)
                await operator.run("key", "rotate", "default")
                await operator.run("key", "rewrap", "--values", "--rate", "10000")
                await load.goes_on()
                await operator.reload(at_transit)
                await operator.run("key", "retire", at_aws)
                await put(operator, load, "at transit")
                aws.hang_up()
                await operator.run("key", "flush")
                await load.goes_on()
                assert await operator.wrapped_by() == {at_transit}
                asked_for_nothing = aws.proxy.struck.total()
            assert asked_for_nothing == 0
        async with serving(config, log) as broker, load.working(broker.url):
            operator = Operator(until=house_parts.until, config=config, clouds=clouds, broker=broker)
            await load.goes_on()
            assert json.loads(await operator.run("audit", "verify", "--live", "--json"))["ok"]
    assert load.refused == []
    assert "Traceback" not in log.read_text()


async def put(operator: Operator, load: Load, value: str) -> None:
    """Store another value of one token; until that is done, workers may be given either."""
    load.values["github/t0"] = load.values["github/t0"] | {value}
    await operator.run("token", "put", "github/t0", given=value)
    load.values["github/t0"] = {value}


async def furnished(house_parts: Any, config: Path, monkeypatch: pytest.MonkeyPatch, wire: Any) -> Load:
    """A cluster with workers and with tokens under two data keys."""
    crew = [wire.Identity(f"w{number}") for number in range(WORKERS)]
    values = {f"github/t{number}": {f"first of {number}"} for number in range(8)}
    async with house_parts.open_house(config, monkeypatch) as house:
        for who in crew:
            await house.register(who, groups=("crew",))
        await house.grant("group:crew", "github/*", ttl_s=300)
        for number, (token, (value,)) in enumerate(values.items()):
            if number == 4:
                await house.services.keys.rotate("default", actor="admin:root")
            await house.put(token, value.encode())
    return Load(until=house_parts.until, wire=wire, crew=crew, values=values)
