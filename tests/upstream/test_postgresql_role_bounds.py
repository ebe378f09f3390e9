"""Which roles the rotator `postgresql-role` leaves alone, and what the server's log learns of passwords."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import asyncpg
import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.upstream.catalog import open_rotator
from broker.upstream.errors import BadSettings, Failed, Refused
from broker.upstream.port import Rotation, Rotator, Site


@pytest.fixture
async def rotator() -> AsyncIterator[Rotator]:
    """The rotator."""
    async with open_rotator("postgresql-role", Site(clock=SystemClock(), hosts=frozenset({"127.0.0.1"}))) as opened:
        yield opened


@pytest.fixture(scope="module")
def talkative(postgres_servers: ModuleType) -> Iterator[Any]:
    """A server that logs every statement with its parameters, as careless ones do."""
    with postgres_servers.serving("log_statement = 'all'", "log_parameter_max_length = -1") as server:
        yield server


def rotation(server: Any, roles: str, **changed: str) -> Rotation:
    """One rotation, by the superuser, who could do anything."""
    settings = {
        "host": "127.0.0.1",
        "port": str(server.port),
        "dbname": "postgres",
        "user": "postgres",
        "roles": roles,
        **changed,
    }
    password = {"password": Secret(server.password.encode())}
    return Rotation(token="app/db", settings=settings, credentials=password, id="5f2c9a0e1b7d4c3f8a6b2d10")


def names() -> tuple[str, str]:
    """Two names of roles that nobody has yet."""
    prefix = f"p{secrets.token_hex(4)}"
    return f"{prefix}_a", f"{prefix}_b"


def password_of(server: Any, role: str) -> str:
    """What the server keeps."""
    kept: str = server.sql("postgres", f"SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'")
    return kept


async def test_a_superuser_is_never_changed(postgres: Any, rotator: Rotator) -> None:
    """A policy that names a superuser sets no password of his, and takes none away, even where it could."""
    one, two = names()
    postgres.sql("postgres", f"CREATE ROLE {one} LOGIN SUPERUSER PASSWORD 'x'; CREATE ROLE {two} LOGIN")
    before = password_of(postgres, one)
    turn = rotation(postgres, f"{one},{two}")
    made = await rotator.create(turn, None)
    own = Secret(json.dumps({"user": one, "password": "x"}).encode())
    for call in (rotator.set(turn, made.value, None), rotator.abandon(turn, own)):
        with pytest.raises(Refused, match="superuser"):
            await call
    assert password_of(postgres, one) == before
    postgres.sql("postgres", f"DROP ROLE {one}")


async def test_a_role_that_is_not_named_is_never_changed(postgres: Any, rotator: Rotator) -> None:
    """A former value of another role is left alone; a new one of another role is refused."""
    one, two = names()
    postgres.sql("postgres", f"CREATE ROLE {one}_x LOGIN PASSWORD 'x'")
    before = password_of(postgres, f"{one}_x")
    turn = rotation(postgres, f"{one},{two}", member_of="pg_monitor")
    foreign = Secret(json.dumps({"user": f"{one}_x", "password": "y"}).encode())
    made = await rotator.create(turn, foreign)
    await rotator.set(turn, made.value, foreign)
    await rotator.finish(turn, made.value, foreign)
    await rotator.abandon(turn, foreign)
    with pytest.raises(Failed):
        await rotator.set(turn, foreign, None)
    assert password_of(postgres, f"{one}_x") == before


async def test_a_role_in_use_is_not_set(postgres: Any, rotator: Rotator) -> None:
    """Whatever value is brought, the role that workers log in with keeps its password."""
    one, two = names()
    turn = rotation(postgres, f"{one},{two}", member_of="pg_monitor")
    made = await rotator.create(turn, None)
    await rotator.set(turn, made.value, None)
    other = Secret(json.dumps({"user": one, "password": "another"}).encode())
    with pytest.raises(Refused, match="in use"):
        await rotator.set(turn, other, made.value)
    await rotator.test(turn, made.value)


async def test_a_value_that_names_nobody_is_not_guessed_at(postgres: Any, rotator: Rotator) -> None:
    """If it is not known which role is in use, neither is touched."""
    one, two = names()
    for value in (b"just-a-password", b'{"user": "x"}', f"postgresql://{one}@127.0.0.1/".encode(), b"\xff"):
        with pytest.raises(BadSettings, match="value in use"):
            await rotator.create(rotation(postgres, f"{one},{two}"), Secret(value))


async def test_a_missing_role_is_made_only_where_it_is_said_how(postgres: Any, rotator: Rotator) -> None:
    """Without `member_of` nothing is created; with it the role gets what the group may."""
    one, two = names()
    postgres.sql("postgres", f"CREATE ROLE {one}_group")
    turn = rotation(postgres, f"{one},{two}")
    made = await rotator.create(turn, None)
    with pytest.raises(Refused, match="member_of"):
        await rotator.set(turn, made.value, None)
    turn = rotation(postgres, f"{one},{two}", member_of=f"{one}_group")
    await rotator.set(turn, made.value, None)
    assert postgres.sql("postgres", f"SELECT pg_has_role('{one}', '{one}_group', 'member')") == "t"


@pytest.mark.parametrize("ends", [True, False])
async def test_what_is_still_logged_in_can_be_ended(postgres: Any, rotator: Rotator, ends: bool) -> None:
    """With `end_sessions` a session of the former role is over after `finish`, and without it goes on."""
    one, two = names()
    turn = rotation(postgres, f"{one},{two}", member_of="pg_monitor", end_sessions=str(ends).lower())
    made = await rotator.create(turn, None)
    await rotator.set(turn, made.value, None)
    login = json.loads(made.value.reveal())
    session = await asyncpg.connect(database=login.pop("dbname"), ssl=False, **login)
    after = await rotator.create(turn, made.value)
    await rotator.finish(turn, after.value, made.value)
    if ends:
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await session.fetchval("SELECT 1")
    else:
        assert await session.fetchval("SELECT 1") == 1
    session.terminate()


async def test_a_password_that_was_given_by_hand_since_stays(postgres: Any, rotator: Rotator) -> None:
    """Giving up a value, or ending one, takes no password away that is another by now."""
    one, two = names()
    turn = rotation(postgres, f"{one},{two}", member_of="pg_monitor")
    made = await rotator.create(turn, None)
    await rotator.set(turn, made.value, None)
    postgres.sql("postgres", f"ALTER ROLE {one} PASSWORD 'by-hand'")
    by_hand = password_of(postgres, one)
    await rotator.abandon(turn, made.value)
    await rotator.finish(turn, Secret(f"postgresql://{two}:x@127.0.0.1/".encode()), made.value)
    assert password_of(postgres, one) == by_hand


async def test_no_password_is_in_the_servers_log(talkative: Any, rotator: Rotator) -> None:
    """A server that logs every statement learns verifiers, and never a password."""
    one, two = names()
    turn = rotation(talkative, f"{one},{two}", member_of="pg_monitor")
    made = await rotator.create(turn, None)
    await rotator.set(turn, made.value, None)
    await rotator.test(turn, made.value)
    await rotator.finish(turn, made.value, None)
    log = (talkative.folder / "log").read_text(errors="replace")
    assert f'ALTER ROLE "{one}" LOGIN PASSWORD \'SCRAM-SHA-256$' in log
    assert json.loads(made.value.reveal())["password"] not in log
