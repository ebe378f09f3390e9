"""Rotators at work in a broker: what they make upstream is what workers lease, and what was before ends there."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import ModuleType
from typing import Any

import asyncpg
import pytest

from broker.clock import FakeClock
from broker.rotation.terms import NewPolicy

TOKEN = "app/access"
ROOT = "admin:root"
PATIENCE_S = 60.0


@pytest.fixture
async def house(open_house: Any) -> Any:
    """A broker on a clock that is moved."""
    async with open_house(clock=FakeClock()) as opened:
        yield opened


async def rotate(house: Any, **policy: Any) -> None:
    """Set the policy, and begin."""
    given = {"token": TOKEN, "overlap_s": 0, **policy}
    await house.services.rotations.admin.set(NewPolicy(**given), actor=ROOT)
    await again(house)


async def again(house: Any) -> None:
    """Begin another rotation, and see it through."""
    before = await state(house)
    await house.services.rotations.admin.run(TOKEN, version=None, actor=ROOT)
    await reach(
        house, lambda found: found.step == "idle" and found.last_version > (before.last_version if before else 0)
    )


async def finished(house: Any, *, after: Any) -> None:
    """See through the rotation that follows that state."""
    former = 0 if after is None else after.last_version
    await reach(house, lambda found: found.step == "idle" and found.last_version > former)


async def state(house: Any) -> Any:
    """How far it is."""
    return await house.services.rotations.book.state(TOKEN)


async def reach(house: Any, condition: Callable[[Any], bool]) -> Any:
    """Move the broker's time on until the rotation is as it should be; upstream's sockets take time of their own."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await state(house)) is None or not condition(found):
            await house.elapse(1)
            await asyncio.sleep(0.02)
    return found


async def value(house: Any, token: str = TOKEN) -> bytes:
    """What a worker would get."""
    revealed = await house.services.revealer.reveal(token, version=None, actor=ROOT)
    return bytes(revealed.value.reveal())


async def taken(call: Awaitable[Any]) -> bool:
    """Whether a login works."""
    try:
        connection = await call
    except asyncpg.InvalidPasswordError:
        return False
    await connection.close()
    return True


async def test_two_roles_take_turns(house: Any, postgres: Any) -> None:
    """Each rotation brings a login that works, and ends the one from before; the two roles take turns."""
    prefix = f"w{secrets.token_hex(4)}"
    postgres.sql("postgres", f"CREATE ROLE {prefix} NOLOGIN")
    await house.put("db/admin", postgres.password.encode())
    settings = {
        "host": "127.0.0.1",
        "port": str(postgres.port),
        "dbname": "postgres",
        "user": "postgres",
        "roles": f"{prefix}_a,{prefix}_b",
        "member_of": prefix,
        "format": "dsn",
    }
    await rotate(house, rotator="postgresql-role", settings=settings, credentials={"password": "db/admin"})
    first = (await value(house)).decode()
    await again(house)
    second = (await value(house)).decode()
    assert (f"{prefix}_a:" in first, f"{prefix}_b:" in second) == (True, True)
    assert await taken(asyncpg.connect(second, ssl=False))
    assert not await taken(asyncpg.connect(first, ssl=False))


async def test_a_refresh_token_that_serves_once_is_kept(house: Any, oauth2_standin: ModuleType) -> None:
    """Each rotation spends the refresh token, and the one that it brings is there for the next."""
    async with oauth2_standin.authorising() as server:
        server.single_use = True
        await house.put("crm/refresh", server.authorise().encode())
        await house.put("crm/secret", server.client_secret.encode())
        settings = {
            "grant": "refresh_token",
            "token_url": f"{server.url}/token",
            "revoke_url": f"{server.url}/revoke",
            "test_url": f"{server.url}/whoami",
            "client_id": server.client_id,
        }
        holders = {"client_secret": "crm/secret", "refresh_token": "crm/refresh"}
        await rotate(house, rotator="oauth2", settings=settings, credentials=holders)
        for _ in range(2):
            await again(house)
        assert server.access == {(await value(house)).decode()}
        assert server.refresh == {(await value(house, "crm/refresh")).decode()}


async def test_a_service_of_ones_own_is_asked(open_house: Any, webhook_receiver: ModuleType, tmp_path: Any) -> None:
    """The configuration allows a host; the service's value is what workers lease, and the former one is forgotten."""
    async with (
        webhook_receiver.receiving() as receiver,
        open_house(clock=FakeClock(), rotation__webhooks="127.0.0.1") as house,
    ):
        receiver.clock = house.broker.clock
        await house.put("crm/webhook", receiver.secret)
        await rotate(
            house, rotator="webhook", settings={"url": receiver.url}, credentials={"signing_key": "crm/webhook"}
        )
        await again(house)
        assert receiver.target(TOKEN).values == {await value(house)}


async def test_a_token_is_replaced_before_it_ends(house: Any, oauth2_standin: ModuleType) -> None:
    """What upstream says of the end of a value brings the next rotation long before the schedule does."""
    async with oauth2_standin.authorising() as server:
        server.expires_in = 60
        await house.put("crm/secret", server.client_secret.encode())
        policy = NewPolicy(
            token=TOKEN,
            rotator="oauth2",
            settings={"grant": "client_credentials", "token_url": f"{server.url}/token", "client_id": server.client_id},
            credentials={"client_secret": "crm/secret"},
            overlap_s=0,
            every_s=86_400,
        )
        began = house.broker.clock.now()
        await house.services.rotations.admin.set(policy, actor=ROOT)
        await finished(house, after=None)
        first = await value(house)
        await finished(house, after=await state(house))
        assert await value(house) != first
        assert house.broker.clock.now() - began < timedelta(seconds=120)
