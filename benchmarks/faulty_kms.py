"""A broker whose KMS can be made slow and faulty, run as a process of its own to be measured.

`python -m benchmarks.faulty_kms CONFIG` prints its URL. SIGUSR1 begins a brown-out (each unwrap takes 2 s, and 19 of 20
fail), SIGUSR2 ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from broker import foundations
from broker.cli.logs import configure_logs
from broker.serving import serve
from broker.settings import load_settings
from kms.catalog import open_kms
from kms.errors import Unavailable
from kms.port import Caller, Description, Kms, Wrap

SLOW_S = 2.0
FAILING = 19
OF = 20


class Faulty:
    """A KMS key, while `brown_out` is set a bad one."""

    def __init__(self, key: Kms, brown_out: asyncio.Event) -> None:
        self._key = key
        self._brown_out = brown_out
        self._turns = itertools.count()

    @property
    def uri(self) -> str:
        """That of the key."""
        return self._key.uri

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        """As the key, or late, or not."""
        if self._brown_out.is_set():
            await asyncio.sleep(SLOW_S)
            if next(self._turns) % OF < FAILING:
                raise Unavailable("brown-out")
        return await self._key.unwrap(wrap, context, caller)

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        """As the key."""
        return await self._key.wrap(key, context)

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        """As the key."""
        return await self._key.generate(context)

    async def check(self) -> None:
        """As the key."""
        await self._key.check()

    async def describe(self) -> Description:
        """As the key."""
        return await self._key.describe()


async def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    settings = load_settings(parser.parse_args().config, {"TOKENBROKER_SERVER__LISTEN": "127.0.0.1:0"})
    configure_logs(level="critical", style="console")
    brown_out, stop = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, brown_out.set)
    loop.add_signal_handler(signal.SIGUSR2, brown_out.clear)
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    @asynccontextmanager
    async def faulty(uri: str) -> AsyncIterator[Kms]:
        async with open_kms(uri) as key:
            yield Faulty(key, brown_out)

    foundations.open_kms = faulty  # type: ignore[assignment]  # it takes a deadline besides, which nobody gives here
    await serve(settings, stop=stop, ready=lambda url: print(f"listening on {url}", flush=True))


if __name__ == "__main__":
    uvloop.run(main())
