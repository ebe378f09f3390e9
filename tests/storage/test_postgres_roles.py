"""The roles of config/postgres/roles.sql: each can do its work, and nothing beyond it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from storage.conformance import Opener, StorageLaws
from storage.conformance.samples import following, sample
from storage.errors import Refused
from storage.port import AuditAppend, Commit
from storage.postgres import open_postgres
from storage.postgres.migrations import NEWEST
from storage.records import AuditBlockRecord, AuditLogRecord, CheckpointRecord


def _migrated(postgres: Any) -> str:
    """A database with the roles and the schema in it, made as an operator makes it."""
    name: str = postgres.create()
    postgres.give_roles(name)
    done = _migrate(postgres.url(name, user="tokenbroker_migrator"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"schema {NEWEST}, before none\n"
    return name


def _migrate(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "storage.postgres", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture(scope="module")
def database(postgres: Any) -> str:
    """The name of such a database, for tests that only try what they may not."""
    return _migrated(postgres)


class TestLawsAsTheBrokerRole(StorageLaws):
    """Every law holds for who may do no more than roles.sql gives a broker."""

    @pytest.fixture
    def opener(self, postgres: Any) -> Opener:
        url = postgres.url(_migrated(postgres), user="tokenbroker_broker")
        return lambda: open_postgres(url)


@pytest.mark.parametrize(
    "statement",
    [
        *(
            f"{change} tokenbroker.{table}"
            for change in ("DELETE FROM", "TRUNCATE")
            for table in ("audit_block", "checkpoint", "audit_log", "audit_head", "feed_head", "schema_version")
        ),
        "TRUNCATE tokenbroker.lease",
        "TRUNCATE tokenbroker.feed",
        "UPDATE tokenbroker.audit_block SET entries = ''",
        "UPDATE tokenbroker.checkpoint SET note = ''",
        "UPDATE tokenbroker.feed SET key = ''",
        "UPDATE tokenbroker.schema_version SET version = 9",
        "INSERT INTO tokenbroker.feed_head VALUES (1)",
        "DROP TABLE tokenbroker.lease",
        "ALTER TABLE tokenbroker.lease ADD COLUMN x int",
        "CREATE TABLE tokenbroker.x (x int)",
        "CREATE TABLE public.x (x int)",
        "CREATE TEMP TABLE x (x int)",
        "CREATE SCHEMA x",
        "DROP TRIGGER only_closing ON tokenbroker.audit_log",
        "SELECT tokenbroker.give_rights()",
    ],
)
def test_the_broker_role_cannot(statement: str, postgres: Any, database: str) -> None:
    """What a broker never does is refused by the database."""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        postgres.sql(database, statement, user="tokenbroker_broker")
    assert "permission denied" in caught.value.stderr or "must be owner" in caught.value.stderr


@pytest.mark.parametrize("kind", [AuditBlockRecord, CheckpointRecord])
async def test_written_audit_rows_stay_through_the_port_too(kind: type[AuditBlockRecord], postgres: Any) -> None:
    """A commit that would change a block or a checkpoint is Refused, and the row is as it was."""
    async with open_postgres(postgres.url(_migrated(postgres), user="tokenbroker_broker")) as storage:
        await storage.commit(Commit(inserts=[sample(kind, 1)]))
        with pytest.raises(Refused):
            await storage.commit(Commit(updates=[following(sample(kind, 1))]))
        assert await storage.get(kind, sample(kind, 1).key) == sample(kind, 1)


async def test_a_log_is_closed_once_and_changes_in_nothing_else(postgres: Any) -> None:
    """Whoever is connected: moving its revision works while it is open, and closing it; no other change does."""
    async with open_postgres(postgres.url(postgres.create())) as storage:
        log = sample(AuditLogRecord, 1, closed_at=None)
        await storage.commit(Commit(inserts=[log]))
        with pytest.raises(Refused):
            await storage.commit(Commit(updates=[following(log, public_key=b"another")]))
        moved = following(log)
        await storage.commit(Commit(updates=[moved]))
        closed = following(moved, closed_at=log.opened_at)
        await storage.commit(Commit(updates=[closed]))
        with pytest.raises(Refused):
            await storage.commit(Commit(updates=[following(closed, closed_at=None)]))
        assert await storage.get(AuditLogRecord, log.key) == closed


async def test_the_auditor_reads_the_log_and_nothing_else(postgres: Any) -> None:
    """Blocks, logs and checkpoints can be read; leases cannot, and nothing can be written."""
    name = _migrated(postgres)
    async with open_postgres(postgres.url(name, user="tokenbroker_broker")) as storage:
        await storage.commit(Commit(audit=AuditAppend(1, (b"e", b"e"))))
    assert postgres.sql(name, "SELECT seq, count FROM tokenbroker.audit_block", user="tokenbroker_auditor") == "0|2"
    for statement in ("SELECT * FROM tokenbroker.lease", "DELETE FROM tokenbroker.audit_block"):
        with pytest.raises(subprocess.CalledProcessError):
            postgres.sql(name, statement, user="tokenbroker_auditor")


async def test_a_schema_that_is_behind_names_the_way(postgres: Any) -> None:
    """The broker role does not migrate, and the refusal says who does, and how."""
    name = postgres.create()
    postgres.give_roles(name)
    with pytest.raises(Refused, match=r"tokenbroker_broker may not migrate; run once.*python -m storage\.postgres"):
        async with open_postgres(postgres.url(name, user="tokenbroker_broker")):
            pass


async def test_migrating_again_changes_nothing(postgres: Any) -> None:
    """A second run says so; a URL that leads nowhere is a failure with its reason."""
    url = postgres.url(_migrated(postgres), user="tokenbroker_migrator")
    assert _migrate(url).stdout == f"schema {NEWEST} already\n"
    failed = _migrate(url.replace(postgres.password, "wrong"))
    assert failed.returncode == 1
    assert "refuses this user" in failed.stderr


async def test_roles_can_be_given_to_a_database_in_use(postgres: Any) -> None:
    """roles.sql takes over a schema that one role made and served, and may be run again and again."""
    name = postgres.create()
    async with open_postgres(postgres.url(name)) as storage:
        await storage.commit(Commit(audit=AuditAppend(1, (b"e",))))
    postgres.give_roles(name)
    postgres.give_roles(name)
    async with open_postgres(postgres.url(name, user="tokenbroker_broker")) as storage:
        assert (await storage.commit(Commit(audit=AuditAppend(1, (b"e",))))).first_seq == 1
    assert _migrate(postgres.url(name, user="tokenbroker_migrator")).stdout == f"schema {NEWEST} already\n"


def test_the_migrator_gains_nothing_from_who_runs_the_script(postgres: Any) -> None:
    """A superuser who runs roles.sql again lends his rights to no function of the schema's owner."""
    name = _migrated(postgres)
    trap = (
        "CREATE OR REPLACE FUNCTION tokenbroker.give_rights() RETURNS void LANGUAGE plpgsql AS "
        "$$ BEGIN {} ALTER ROLE tokenbroker_migrator SUPERUSER; END $$"
    )
    for first in ("", "RESET ROLE;", "SET ROLE postgres;", "SET SESSION AUTHORIZATION postgres;"):
        postgres.sql(name, trap.format(first), user="tokenbroker_migrator")
        with pytest.raises(subprocess.CalledProcessError):
            postgres.give_roles(name)
        asked = "SELECT rolsuper FROM pg_roles WHERE rolname = 'tokenbroker_migrator'"
        assert postgres.sql(name, asked) == "f"


@pytest.mark.parametrize(("setting", "value"), [("statement_timeout", "5s"), ("lock_timeout", "2500ms")])
def test_the_broker_roles_bounds_need_no_client(setting: str, value: str, postgres: Any, database: str) -> None:
    """Timeouts belong to the role, so that they hold behind PgBouncer."""
    assert postgres.sql(database, f"SHOW {setting}", user="tokenbroker_broker") == value
