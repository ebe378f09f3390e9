"""Databases that must not be used as they are: each a refusal of its own, and nothing is touched."""

from __future__ import annotations

from typing import Any

import pytest

from storage.errors import Damaged, NewerSchema, NotOurs, Refused, StorageError, Unavailable, Unreachable
from storage.port import Commit
from storage.postgres import open_postgres
from storage.postgres.migrations import NEWEST


async def _refusal(url: str) -> StorageError:
    """What opening this URL says."""
    with pytest.raises(StorageError) as caught:
        async with open_postgres(url):
            pass
    return caught.value


async def _made(postgres: Any) -> str:
    """The name of a database with our schema in it."""
    name: str = postgres.create()
    async with open_postgres(postgres.url(name)) as storage:
        await storage.commit(Commit())
    return name


async def test_a_database_that_is_not_there_is_unreachable(postgres: Any) -> None:
    """The message names the address, without the password."""
    error = await _refusal(postgres.url("nowhere"))
    assert isinstance(error, Unreachable)
    assert "nowhere" in str(error)
    assert postgres.password not in str(error)


async def test_a_wrong_password_is_unreachable(postgres: Any) -> None:
    """A refused user is no outage that passes by itself."""
    url = postgres.url("postgres").replace(postgres.password, "wrong")
    assert isinstance(await _refusal(url), Unreachable)


async def test_a_port_where_nobody_listens_is_unavailable(postgres: Any) -> None:
    """A server that is down may come back."""
    assert isinstance(await _refusal(postgres.url("postgres").replace(f":{postgres.port}/", ":1/")), Unavailable)


async def test_a_schema_of_another_application_is_not_ours(postgres: Any) -> None:
    """A schema of our name with other tables in it is left alone."""
    name = postgres.create()
    postgres.sql(name, "CREATE SCHEMA tokenbroker; CREATE TABLE tokenbroker.theirs (x int)")
    assert isinstance(await _refusal(postgres.url(name)), NotOurs)
    assert postgres.sql(name, "SELECT count(*) FROM pg_tables WHERE schemaname = 'tokenbroker'") == "1"


async def test_other_schemas_do_not_matter(postgres: Any) -> None:
    """A database may hold other things beside ours."""
    name = postgres.create()
    postgres.sql(name, "CREATE TABLE public.lease (x int)")
    async with open_postgres(postgres.url(name)) as storage:
        await storage.commit(Commit())


async def test_a_schema_that_is_too_new_is_refused(postgres: Any) -> None:
    """A schema whose oldest reader is newer than this release is NewerSchema."""
    name = await _made(postgres)
    postgres.sql(name, f"UPDATE tokenbroker.schema_version SET version = {NEWEST + 2}, oldest_reader = {NEWEST + 1}")
    assert isinstance(await _refusal(postgres.url(name)), NewerSchema)


async def test_a_schema_of_the_next_release_still_serves(postgres: Any) -> None:
    """Two releases run side by side while the newer one's schema says that the older can read it."""
    name = await _made(postgres)
    postgres.sql(name, f"UPDATE tokenbroker.schema_version SET version = {NEWEST + 1}")
    async with open_postgres(postgres.url(name)) as storage:
        assert (await storage.check()).schema == NEWEST + 1


async def test_a_half_made_schema_is_not_ours(postgres: Any) -> None:
    """Without its version row nobody knows what the schema is."""
    name = await _made(postgres)
    postgres.sql(name, "DELETE FROM tokenbroker.schema_version")
    assert isinstance(await _refusal(postgres.url(name)), NotOurs)


async def test_a_missing_table_shows_at_the_start(postgres: Any) -> None:
    """Not at the first lease."""
    name = await _made(postgres)
    postgres.sql(name, "DROP TABLE tokenbroker.lease")
    assert isinstance(await _refusal(postgres.url(name)), Damaged)


async def test_a_role_without_privileges_is_refused(postgres: Any) -> None:
    """Opening names what is lacking."""
    name = await _made(postgres)
    postgres.sql("postgres", f"CREATE ROLE poor_{name} LOGIN PASSWORD '{postgres.password}'")
    error = await _refusal(postgres.url(name, user=f"poor_{name}"))
    assert isinstance(error, Refused)
    assert "may not do this" in str(error)


@pytest.mark.parametrize("setting", ["synchronous_commit = off", "synchronous_commit = local"])
async def test_settings_that_lose_acknowledged_commits_are_refused(postgres: Any, setting: str) -> None:
    """A database where a power cut may take what was acknowledged does not serve."""
    name = await _made(postgres)
    postgres.sql("postgres", f'ALTER DATABASE "{name}" SET {setting}')
    error = await _refusal(postgres.url(name))
    assert isinstance(error, Refused)
    assert "synchronous_commit" in str(error)


async def test_another_encoding_is_refused(postgres: Any) -> None:
    """Names and labels are any text."""
    name = f"latin_{postgres.create()}"
    postgres.sql("postgres", f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0")
    error = await _refusal(postgres.url(name))
    assert isinstance(error, Refused)
    assert "UTF8" in str(error)
