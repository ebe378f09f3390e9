"""The admin API behind a real socket, on a whole broker with SQLite and a local key. Nothing is simulated but time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from yarl import URL

from broker.api.application import make_api
from broker.api.limits import ApiLimits, Rate
from broker.api.probes import State
from broker.api.services import Services, make_services
from broker.app import Broker, open_broker
from broker.authority.manifest import initial_manifests
from broker.clock import FakeClock
from broker.settings import Settings
from broker.vault.root import create_root
from kms.catalog import open_kms
from kms.local import create_key_file
from storage.catalog import open_storage
from storage.port import Commit

GENEROUS = Rate(per_s=1e6, burst=1_000_000)
OPEN = ApiLimits(credential=GENEROUS, address=GENEROUS, failures=GENEROUS)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: Any
    raw: bytes
    body: Any

    @property
    def code(self) -> str:
        """The code of a problem."""
        assert self.headers["Content-Type"].startswith("application/problem+json"), self.raw
        return self.body["code"]


@dataclass(frozen=True, kw_only=True)
class Site:
    """A listening API: `url`, the broker behind it, and a credential for each role."""

    url: str
    broker: Broker
    services: Services
    clock: FakeClock
    registry: CollectorRegistry
    http: aiohttp.ClientSession
    credentials: dict[str, str] = field(repr=False)
    app: web.Application
    failing: set[str] = field(default_factory=set)

    async def ask(
        self, method: str, path: str, json: Any = None, *, role: str | None = "admin", **headers: str
    ) -> Answer:
        """Send a request with the credential of a role and read the whole answer."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if role is not None:
            sent["Authorization"] = f"Bearer {self.credentials[role]}"
        url = URL(self.url + path, encoded=True)
        async with self.http.request(method, url, json=json, headers=sent) as response:
            raw = await response.read()
            is_json = "json" in response.headers.get("Content-Type", "")
            body = await response.json(content_type=None) if is_json else None
            return Answer(status=response.status, headers=response.headers, raw=raw, body=body)

    async def admin(self, name: str, *roles: str) -> None:
        """Make an admin and keep its credential under its name."""
        minted = await self.services.admins.create(name, roles=roles, expires_at=None, actor="system")
        self.credentials[name] = minted.credential.reveal().decode()

    async def put(self, token: str, value: str = "value", **more: Any) -> Answer:
        """Store a value."""
        return await self.ask("POST", f"/v1/tokens/{token}/-/versions", {"value": value, **more})

    async def recorded(self) -> bytes:
        """All audit entries as text."""
        page = await self.services.audit.tail(after=None, limit=1000)
        return b"\n".join(entry.text for entry in page.entries)


OpenSite = Callable[..., Any]


@pytest.fixture
def open_site(tmp_path: Path) -> OpenSite:
    """Opens a site; `limits`: the API's, `reveal`: whether values may be shown."""

    @asynccontextmanager
    async def opened(*, limits: ApiLimits = OPEN, reveal: bool = True) -> AsyncIterator[Site]:
        clock = FakeClock()
        settings = await _found(tmp_path, clock)
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
                reveal_allowed=reveal,
            )
            await broker.tokens.keys.bootstrap()
            failing: set[str] = set()
            registry = CollectorRegistry()
            app = make_api(
                services=services,
                checks={name: _check(name, failing) for name in ("storage", "kms", "audit", "feed")},
                registry=registry,
                limits=limits,
            )
            async with _listening(app) as url, aiohttp.ClientSession() as http:
                site = Site(
                    url=url,
                    broker=broker,
                    services=services,
                    clock=clock,
                    registry=registry,
                    http=http,
                    credentials={},
                    app=app,
                    failing=failing,
                )
                for role in ("admin", "operator", "auditor", "reader"):
                    await site.admin(role, role)
                yield site
            desk.cancel()

    return opened


@pytest.fixture
async def site(open_site: OpenSite) -> AsyncIterator[Site]:
    """A site whose limits nobody reaches."""
    async with open_site() as opened:
        yield opened


def _check(name: str, failing: set[str]) -> Callable[[], Awaitable[State]]:
    async def check() -> State:
        if name in failing:
            raise RuntimeError(f"{name} is down")
        return State.OK

    return check


@asynccontextmanager
async def _listening(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, lingering_time=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _found(folder: Path, clock: FakeClock) -> Settings:
    create_key_file(folder / "kms.key")
    url, key = f"sqlite:///{folder / 'broker.db'}", f"local:{folder / 'kms.key'}"
    async with open_storage(url) as storage, open_kms(key) as kms:
        record, root = await create_root(kms=[kms], now=clock.now())
        await storage.commit(Commit(inserts=(record, *initial_manifests(root.derive, root.cluster_id))))
    return Settings.model_validate(
        {
            "cluster": {"id": root.cluster_id},
            "server": {"instance": "one"},
            "storage": {"url": url},
            "kms": {"keys": [key]},
        }
    )
