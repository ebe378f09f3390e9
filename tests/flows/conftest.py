"""Whole stories over real sockets: a broker on port 0 with a database of its own, and workers that speak raw frames."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from broker.admin.asked import NewPool
from broker.clock import FakeClock, SystemClock
from broker.setup.initialising import initialise
from broker.setup.layout import Layout, layout_of


def _beside(name: str) -> ModuleType:
    """A module of this folder that is no test. Tests are no package, so it is loaded by its path."""
    known = f"flows_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


@pytest.fixture(scope="session")
def house_parts() -> ModuleType:
    """The module `house`."""
    return _beside("house")


@pytest.fixture(scope="session")
def wire() -> ModuleType:
    """The module `wire_client`."""
    return _beside("wire_client")


@pytest.fixture(scope="session")
def clouds() -> ModuleType:
    """The module `clouds`."""
    return _beside("clouds")


@pytest.fixture(params=["aws-kms", "transit"])
async def cloud(
    *,
    request: pytest.FixtureRequest,
    clouds: Any,
    moto: Any,
    bao: Any,
    bao_servers: Any,
    proxies: Any,
    aws_environment: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Any]:
    """A KMS behind a proxy: AWS KMS, then transit (`clouds.Cloud`)."""
    clouds.unhurried(monkeypatch)
    home = tmp_path / "cloud"
    home.mkdir(mode=0o700)
    played = (
        clouds.aws(moto, proxies) if request.param == "aws-kms" else clouds.transit(bao, bao_servers, proxies, home)
    )
    async with played as opened:
        yield opened


@pytest.fixture(scope="session")
def crms() -> ModuleType:
    """The module `crm`."""
    return _beside("crm")


@pytest.fixture(scope="session")
def deciders() -> ModuleType:
    """The module `deciders`."""
    return _beside("deciders")


@pytest.fixture(scope="session")
def issued_from() -> ModuleType:
    """The module `issued_from`."""
    return _beside("issued_from")


@pytest.fixture(scope="session")
def serving() -> Any:
    """Starts a broker in a process of its own."""
    return _beside("served").serving


@pytest.fixture(scope="session")
def players() -> ModuleType:
    """The module `players`."""
    return _beside("players")


@pytest.fixture(scope="session")
def clusters() -> ModuleType:
    """The module `cluster`."""
    return _beside("cluster")


@pytest.fixture(scope="session")
def crews() -> ModuleType:
    """The module `crew`."""
    return _beside("crew")


@pytest.fixture
def reckon(house_parts: Any) -> Any:
    """Holds the record of a cluster against the diary of a crew that is at rest."""
    return functools.partial(_beside("reckoning").reckon, house_parts=house_parts)


@pytest.fixture
def stopwatch(clusters: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """Says how long it took to serve again, and holds it to a bound."""
    return clusters.Stopwatch(capsys)


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A cluster as `init` leaves it; every test gets a copy of its database."""
    layout = layout_of(data_dir=tmp_path_factory.mktemp("founded") / "data", config=None)
    asyncio.run(initialise(layout, own_config=False, passphrase_file=None, new_credential=False, clock=SystemClock()))
    return layout


@pytest.fixture
def config(founded: Layout, tmp_path: Path, house_parts: Any) -> Path:
    """The configuration of a fresh cluster on disk."""
    path: Path = house_parts.settle_in(founded, tmp_path / "data")
    return path


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until it is moved, and begins today, as the founded cluster did."""
    return FakeClock(SystemClock().now())


@pytest.fixture
def open_house(
    config: Path, monkeypatch: pytest.MonkeyPatch, house_parts: Any
) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """Serves the cluster of `config`, as often as a test wants."""

    def opened(**options: Any) -> AbstractAsyncContextManager[Any]:
        serving: AbstractAsyncContextManager[Any] = house_parts.open_house(config, monkeypatch, **options)
        return serving

    return opened


@pytest.fixture
async def shared(postgres: Any, tmp_path: Path, clusters: Any) -> Path:
    """The configuration of a fresh cluster on PostgreSQL, which any number of replicas may serve."""
    url = postgres.url(await asyncio.to_thread(postgres.create))
    path: Path = await clusters.found(url, tmp_path / "shared")
    return path


@pytest.fixture
def open_replica(
    shared: Path, monkeypatch: pytest.MonkeyPatch, house_parts: Any
) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """Serves the cluster of `shared` in this process, under the name that is given, as often as a test wants."""

    def opened(instance: str, **options: Any) -> AbstractAsyncContextManager[Any]:
        given = {"server__instance": instance, **options}
        serving: AbstractAsyncContextManager[Any] = house_parts.open_house(shared, monkeypatch, **given)
        return serving

    return opened


@pytest.fixture
async def pair(open_replica: Any, prepare: Any) -> AsyncIterator[Any]:
    """Two replicas, `one` and `two`, with worker ci-1 that may lease github/ci."""
    async with open_replica("one") as one, open_replica("two") as two:
        await prepare(one)
        two.workers = one.workers
        await two.settled()
        yield one, two


@pytest.fixture
async def house(open_house: Any, prepare: Any) -> AsyncIterator[Any]:
    """A broker with worker ci-1 that is granted github/* for a minute, and token github/ci."""
    async with open_house() as opened:
        await prepare(opened)
        yield opened


@pytest.fixture
def prepare(wire: Any) -> Any:
    """Gives a broker worker ci-1, its grant for github/*, and token github/ci with value s3cret."""

    async def furnish(house: Any, ttl_s: int = 60, max_ttl_s: int = 3600, worker: str = "ci-1") -> Any:
        who = wire.Identity(worker)
        await house.register(who)
        house.workers[worker] = who
        house.granted = await house.grant(f"worker:{worker}", "github/*", ttl_s, max_ttl_s)
        if worker == "ci-1":
            await house.put("github/ci", b"s3cret")
        return who

    return furnish


@pytest.fixture
def welcomed(wire: Any) -> Any:
    """Connects a worker of a house (by default ci-1) and proves it."""

    @asynccontextmanager
    async def connect(house: Any, worker: str = "ci-1", **options: Any) -> AsyncIterator[Any]:
        async with wire.dial(house.url, **options) as connection:
            answer = await connection.handshake(house.workers[worker])
            assert answer["type"] == "welcome", answer
            yield connection

    return connect


@pytest.fixture
def pooled() -> Any:
    """Makes the pool github/bots of members bot/1, bot/2, …, each with a value that names it, and ci-2, ci-3, …."""

    async def make(house: Any, prepare: Any, *, members: int = 2, leases_max: int = 1, workers: int = 3) -> Any:
        names = [f"bot/{number}" for number in range(1, members + 1)]
        for name in names:
            await house.put(name, f"value of {name}".encode())
        for number in range(2, workers + 1):
            await prepare(house, worker=f"ci-{number}")
        pools = house.services.pools
        await pools.define(NewPool(token="github/bots", members=names, leases_max=leases_max), actor="admin:root")
        await house.settled()
        return pools

    return make
