"""A whole broker on SQLite with a local key, and every admin service on it. Nothing is simulated but time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from broker.api.services import Services, make_services
from broker.app import Broker, open_broker
from broker.audit.encoding import decode
from broker.audit.entries import Entry
from broker.authority.manifest import initial_manifests
from broker.clock import FakeClock
from broker.settings import Settings
from broker.vault.root import create_root
from kms.catalog import open_kms
from kms.local import create_key_file
from storage.catalog import open_storage
from storage.port import Commit

ROOT = "admin:root"


@dataclass(frozen=True, kw_only=True)
class House:
    """A broker that is not listening, and its admin services."""

    broker: Broker
    services: Services
    clock: FakeClock

    def jump(self, ahead: timedelta) -> None:
        """Move the wall clock alone, without living through the time in between."""
        self.clock._start += ahead

    async def recorded(self) -> list[Entry]:
        """Every audit entry, oldest first."""
        page = await self.services.audit.tail(after=None, limit=1000)
        return [decode(entry.text) for entry in reversed(page.entries)]


async def found(folder: Path, clock: FakeClock) -> Settings:
    """Found a cluster in a folder, and give the settings to serve it with."""
    create_key_file(folder / "kms.key")
    url, key = f"sqlite:///{folder / 'broker.db'}", f"local:{folder / 'kms.key'}"
    async with open_storage(url) as storage, open_kms(key) as kms:
        record, root = await create_root(kms=[kms], now=clock.now())
        manifests = initial_manifests(root.derive, root.cluster_id)
        await storage.commit(Commit(inserts=(record, *manifests)))
    return Settings.model_validate(
        {
            "cluster": {"id": root.cluster_id},
            "server": {"instance": "one"},
            "storage": {"url": url},
            "kms": {"keys": [key]},
        }
    )


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def open_house(tmp_path: Path) -> OpenHouse:
    """Opens the broker of one database as often as a test wants, each time with the KMS keys that it names."""

    founded: list[Settings] = []

    @asynccontextmanager
    async def opened(*kms_keys: Path) -> AsyncIterator[House]:
        clock = FakeClock()
        if not founded:
            founded.append(await found(tmp_path, clock))
        told = founded[0]
        for path in kms_keys:
            if not path.exists():
                create_key_file(path)
        keys = tuple(f"local:{path}" for path in kms_keys) or told.kms.keys
        told = told.model_copy(update={"kms": told.kms.model_copy(update={"keys": keys})})
        async with _standing(told, clock, tmp_path) as house:
            yield house

    return opened


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    """A founded broker with the keyring `default`."""
    async with open_house() as opened:
        yield opened


@asynccontextmanager
async def _standing(settings: Settings, clock: FakeClock, tmp_path: Path) -> AsyncIterator[House]:
    async with open_broker(settings, clock=clock) as broker, asyncio.TaskGroup() as tasks:
        desk = tasks.create_task(broker.desk.run())
        services = make_services(
            root=broker.root,
            instance=settings.instance,
            clock=clock,
            authority=broker.authority,
            storage=broker.storage,
            vault=broker.vault,
            tokens=broker.tokens,
            leases=broker.leases,
            uses=broker.uses,
            vkey=broker.journal.vkey,
            scratch=tmp_path,
        )
        await broker.tokens.keys.bootstrap()
        yield House(broker=broker, services=services, clock=clock)
        desk.cancel()
