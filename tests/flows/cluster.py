"""Several brokers on one PostgreSQL, each in a process of its own as operators run them, and an admin who asks them.

Who works there is `crew`'s, and whether the record is what everybody was told is `reckoning`'s.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from broker.clock import SystemClock
from broker.setup.initialising import initialise
from broker.setup.layout import layout_of

ANSWER_S = 5.0
"""How long one replica is given for one answer."""


class Cluster:
    """Replicas by name. A name keeps its place when it is started again; its port is another one then."""

    def __init__(
        self, config: Path, serving: Callable[..., Any], http: aiohttp.ClientSession, stack: AsyncExitStack
    ) -> None:
        """stack: ends the processes."""
        self.config = config
        self.replicas: dict[str, Any] = {}
        self._serving = serving
        self._http = http
        self._stack = stack
        self._turns = itertools.count()

    @property
    def urls(self) -> list[str]:
        """Where workers try, dead replicas included: nobody tells them."""
        return [process.url for process in self.replicas.values()]

    @property
    def living(self) -> list[str]:
        return [name for name, process in self.replicas.items() if process.running]

    def log(self, name: str) -> Path:
        return self.config.parent / f"{name}.log"

    async def start(self, name: str, **environ: str) -> None:
        """Start a replica with settings of its own, or start it again; return when it listens."""
        process = self._serving(self.config, self.log(name), server__instance=name, **environ)
        self.replicas[name] = await self._stack.enter_async_context(process)

    async def kill(self, name: str) -> None:
        await self.replicas[name].kill()

    def freeze(self, name: str) -> None:
        os.kill(self.replicas[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.kill(self.replicas[name].pid, signal.SIGCONT)

    async def ask(
        self, method: str, path: str, body: Any = None, *, of: str = "", within_s: float = ANSWER_S
    ) -> tuple[int, Any]:
        """One question to one replica (by default to each in turn): status and answer.

        TimeoutError, aiohttp.ClientError: nobody knows what became of it.
        """
        url = self.replicas[of].url if of else self.urls[next(self._turns) % len(self.urls)]
        async with (
            asyncio.timeout(within_s),
            self._http.request(method, f"{url}{path}", json=body) as answer,
        ):
            return answer.status, await answer.json()

    async def must(self, method: str, path: str, body: Any = None, *, of: str = "", within_s: float = 60.0) -> Any:
        """Ask until it is acknowledged; the answer."""
        async with asyncio.timeout(within_s):
            while True:
                try:
                    status, answer = await self.ask(method, path, body, of=of)
                except (aiohttp.ClientError, TimeoutError):
                    continue
                if status < 300:
                    return answer
                assert status in {429, 503}, (status, answer)
                await asyncio.sleep(0.1)

    async def ready(self, name: str) -> dict[str, str]:
        """What /readyz of a replica says, by check; `ready` is its status."""
        status, answer = await self.ask("GET", "/readyz", of=name, within_s=30)
        return {**answer["checks"], "ready": str(status)}

    async def until_listed(self, name: str, *, of: str, there: bool, within_s: float = 40.0) -> None:
        """Return when a replica knows of another one, or has closed the sessions of a dead one and forgotten it."""
        async with asyncio.timeout(within_s):
            while True:
                listed = (await self.must("GET", "/v1/status", of=of))["replicas"]
                if (name in {row["instance"] for row in listed}) is there:
                    return
                await asyncio.sleep(0.2)

    async def until_ready(self, name: str, within_s: float, *, ready: bool = True) -> None:
        """Return when a replica says that it is ready, or that it is not."""
        async with asyncio.timeout(within_s):
            while True:
                if ((await self.ready(name))["ready"] == "200") is ready:
                    return
                await asyncio.sleep(0.1)


async def found(url: str, folder: Path) -> Path:
    """Make a cluster in an empty database; the configuration for all of its replicas."""
    folder.mkdir(mode=0o700)
    path = folder / "broker.toml"
    path.write_text(f'[storage]\nurl = "{url}"\n\n[kms]\nkeys = ["local:{folder}/kms.key"]\n')
    path.chmod(0o600)
    layout = layout_of(data_dir=None, config=path)
    await initialise(layout, own_config=True, passphrase_file=None, new_credential=False, clock=SystemClock())
    return path


@asynccontextmanager
async def running(config: Path, serving: Callable[..., Any], **replicas: dict[str, str]) -> AsyncIterator[Cluster]:
    """A cluster with these replicas, each with settings of its own; all are killed when the context ends."""
    credential = tomllib.loads((config.parent / "profile.toml").read_text())["credential"]
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            aiohttp.ClientSession(
                headers={"Authorization": f"Bearer {credential}"},
                # A connection that is kept would break with its replica, and the next question with it.
                connector=aiohttp.TCPConnector(force_close=True),
            )
        )
        cluster = Cluster(config, serving, http, stack)
        await asyncio.gather(*(cluster.start(name, **environ) for name, environ in replicas.items()))
        yield cluster


class Stopwatch:
    """Says on the terminal how long something took, and holds it to a bound."""

    def __init__(self, capsys: Any) -> None:
        self._capsys = capsys
        self._began = time.monotonic()

    def start(self) -> None:
        self._began = time.monotonic()

    def stop(self, what: str, *, bound_s: float) -> None:
        """bound_s: as docs/explain/failure-modes.md gives it."""
        took_s = time.monotonic() - self._began
        with self._capsys.disabled():
            print(f"\n{what}: {took_s:.1f} s; bound {bound_s:g} s")
        assert took_s < bound_s, what
