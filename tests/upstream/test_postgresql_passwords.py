"""What a PostgreSQL server is told of a password lets its owner in, and tells its log nothing."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from broker.clock import SystemClock
from broker.upstream.errors import BadSettings, Refused, Unreachable
from broker.upstream.port import Site
from broker.upstream.postgresql.scram import new_password, scram_verifier
from broker.upstream.postgresql.server import ServerTerms, connected, quoted

SITE = Site(clock=SystemClock(), hosts=frozenset({"127.0.0.1"}))


def _where(postgres: Any, **other: Any) -> ServerTerms:
    return ServerTerms(
        **{"host": "127.0.0.1", "port": postgres.port, "dbname": "postgres", "user": "postgres", **other}
    )


async def test_a_verifier_lets_in_whoever_knows_the_password(postgres: Any) -> None:
    """The server takes the verifier as it is, and then the password, and no other."""
    role, password = f"r{secrets.token_hex(4)}", new_password()
    postgres.sql("postgres", f"CREATE ROLE {role} LOGIN PASSWORD '{scram_verifier(password)}'")
    stored = postgres.sql("postgres", f"SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'")
    assert stored.startswith("SCRAM-SHA-256$4096:")
    async with connected(_where(postgres), user=role, password=password, site=SITE) as connection:
        assert await connection.fetchval("SELECT current_user") == role
    with pytest.raises(Refused):
        async with connected(_where(postgres), user=role, password=new_password(), site=SITE, refused=Refused):
            pass


@pytest.mark.parametrize("name", ['a"b', "a b", "ü", "a'b; DROP ROLE x", "x" * 63])
async def test_a_name_is_quoted_so_that_the_server_reads_it_back(postgres: Any, name: str) -> None:
    """Whatever stands in a name is the name, and never SQL."""
    async with connected(_where(postgres), user="postgres", password=postgres.password, site=SITE) as connection:
        row = await connection.fetchrow(f"SELECT 1 AS {quoted(name)}")
    assert list(row.keys()) == [name]


@pytest.mark.parametrize("name", ["", "x" * 64, "ü" * 32, "a\0b", "a\nb", "\ud800"])
def test_what_the_server_would_read_as_another_name_is_refused(name: str) -> None:
    """Names that are cut off, or cannot be sent, are settings to be mended."""
    with pytest.raises(BadSettings):
        quoted(name)


async def test_a_server_that_is_not_there_is_unreachable(postgres: Any) -> None:
    """No answer is worth another attempt."""
    with pytest.raises(Unreachable):
        async with connected(_where(postgres, port=1), user="postgres", password="x", site=SITE):
            pass


async def test_a_database_that_is_not_there_is_a_setting_to_mend(postgres: Any) -> None:
    """The message names the setting."""
    with pytest.raises(BadSettings, match="dbname"):
        async with connected(
            _where(postgres, dbname="nowhere"), user="postgres", password=postgres.password, site=SITE
        ):
            pass
