"""A real broker for the pages that are run: set up by `init`'s own code, served on a free port of loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from broker.clock import SystemClock
from broker.profile import read_profile
from broker.serving import serve
from broker.settings import load_settings
from broker.setup.initialising import initialise
from broker.setup.layout import layout_of

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Served:
    """A broker that serves. admin: asks its API with the first admin's credential."""

    url: str
    admin: aiohttp.ClientSession

    async def operate(self, method: str, path: str, body: object = None) -> None:
        """One request of an operator; it must be carried out."""
        async with self.admin.request(method, path, json=body) as answer:
            assert answer.status < 300, await answer.text()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """A broker on SQLite with a local KMS key, freshly founded."""
    layout = layout_of(data_dir=tmp_path / "data", config=None)
    await initialise(layout, own_config=False, passphrase_file=None, new_credential=False, clock=SystemClock())
    settings = load_settings(layout.config, {"TOKENBROKER_SERVER__LISTEN": "127.0.0.1:0"})
    credential = read_profile(layout.profile).credential.reveal().decode()
    stop = asyncio.Event()
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(settings, stop=stop, ready=listening.set_result))
        url = await listening
        headers = {"Authorization": f"Bearer {credential}"}
        async with aiohttp.ClientSession(url, headers=headers) as admin:
            yield Served(url=url, admin=admin)
        stop.set()
