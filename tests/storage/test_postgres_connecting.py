"""Several hosts: the one that serves is found, remembered, and left when it takes no writes any more."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.conformance.samples import lease
from storage.errors import Unavailable, Unreachable
from storage.port import Commit
from storage.postgres import open_postgres
from storage.postgres.address import parse_address
from storage.postgres.connecting import Connector
from storage.records import LeaseRecord


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are taken, and nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


def _url(postgres: Any, ports: list[int], database: str = "postgres") -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"postgresql://postgres:{postgres.password}@{hosts}/{database}?target_session_attrs=read-write"


async def test_a_silent_host_costs_its_own_time_once(postgres: Any, silent: int) -> None:
    """The next host is asked when the first one's time is over, and from then on it comes first."""
    address = parse_address(_url(postgres, [silent, postgres.port]), statement_s=5)
    connector = Connector(address, connect_s=2)
    loop = asyncio.get_running_loop()
    (await connector.connect()).terminate()
    began = loop.time()
    for _ in range(10):
        (await connector.connect()).terminate()
    assert loop.time() - began < 20  # seconds that ten turns of the silent host would take


async def test_a_refusal_tells_more_than_silence(postgres: Any) -> None:
    """Of a host that is down and one that refuses the password, opening names the password."""
    url = _url(postgres, [postgres.port, 1]).replace(postgres.password, "wrong")
    with pytest.raises(Unreachable, match="password"):
        async with open_postgres(url):
            pass


async def test_a_password_comes_from_a_file(postgres: Any, tmp_path: Path) -> None:
    """The file of passwords is asked for each host by its name and port."""
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:1:*:*:wrong\n127.0.0.1:{postgres.port}:*:*:{postgres.password}\n")
    file.chmod(0o600)
    name = postgres.create()
    async with open_postgres(
        f"postgresql://postgres@127.0.0.1:1,127.0.0.1:{postgres.port}/{name}?passfile={file}"
    ) as storage:
        await storage.commit(Commit())


async def test_a_primary_that_steps_down_is_left(postgres_of_its_own: Any) -> None:
    """Once the server takes no writes, calls are Unavailable and its connections dropped; when it does, it serves."""
    server = postgres_of_its_own
    async with open_postgres(_url(server, [server.port], server.create())) as storage:
        await storage.commit(Commit(inserts=[lease(1)]))
        server.sql("postgres", "ALTER SYSTEM SET default_transaction_read_only = on")
        server.sql("postgres", "SELECT pg_reload_conf()")
        async with asyncio.timeout(30):
            number = 2
            while await _try(storage, number):
                number += 1
        assert not await _try(storage, number)
        server.sql("postgres", "ALTER SYSTEM RESET default_transaction_read_only")
        server.sql("postgres", "SELECT pg_reload_conf()")
        async with asyncio.timeout(30):
            while not await _try(storage, number):
                continue
        assert await storage.get(LeaseRecord, lease(number).key) == lease(number)


async def _try(storage: Any, number: int) -> bool:
    try:
        await storage.commit(Commit(inserts=[lease(number)]))
    except Unavailable:
        return False
    return True
