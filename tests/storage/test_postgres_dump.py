"""A database as PostgreSQL's own tools copy it: the commands of docs/howto/postgresql.md."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from storage import records
from storage.conformance.samples import sample
from storage.port import AuditAppend, Commit
from storage.postgres import open_postgres


async def test_a_restored_dump_goes_on_where_it_was_taken(postgres: Any, tmp_path: Path) -> None:
    """Every record, number and position of a dump is there after pg_restore, for the broker role too."""
    source, target = postgres.create(), postgres.create()
    made = [sample(kind, 1) for kind in records.ALL]
    async with open_postgres(postgres.url(source)) as storage:
        done = await storage.commit(
            Commit(inserts=made, audit=AuditAppend(9, (b"a", b"b")), announce=[("lease", ("x",))])
        )
    dump = tmp_path / "broker.dump"
    _run(
        postgres, "pg_dump", "--format=custom", "--no-owner", "--schema=tokenbroker", f"--file={dump}",
        postgres.url(source),
    )  # fmt: skip
    _run(postgres, "pg_restore", "--no-owner", "--exit-on-error", f"--dbname={postgres.url(target)}", str(dump))
    postgres.give_roles(target)
    async with open_postgres(postgres.url(target, user="tokenbroker_broker")) as storage:
        for record in made:
            assert await storage.get(type(record), record.key) == record
        assert [change.key for change in await storage.feed(0)] == [("x",)]
        more = await storage.commit(Commit(audit=AuditAppend(9, (b"c",)), announce=[("lease", ("y",))]))
        assert (more.first_seq, more.position) == (2, done.position + 1)


def _run(postgres: Any, program: str, *arguments: str) -> None:
    command = [str(postgres.programs / program), *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
