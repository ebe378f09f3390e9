"""The full check: it says everything that is wrong, by name, and cries wolf over nothing."""

from __future__ import annotations

from typing import Any

import pytest

from broker.authority.authority import find_forged
from broker.clock import FakeClock
from storage.port import Delete
from storage.records import TokenRecord, VersionRecord, WorkerRecord


async def find(cluster: Any, storage: Any) -> list[Any]:
    """`find_forged`, as the doctor calls it on a database that does not load."""
    return await find_forged(storage=storage, derive=cluster.derive, cluster_id=cluster.cluster_id, clock=FakeClock())


async def test_a_sound_database_has_no_problems(cluster: Any, worker: Any, grant: Any) -> None:
    """Nothing is reported of rows that this cluster wrote."""
    async with cluster.replica() as (authority, storage):
        await authority.commit([], inserts=[worker("ann"), grant("g1")])
        await authority.commit([], deletes=[Delete(WorkerRecord, ("ann",), 1)])
        assert await authority.check() == []
        assert await find(cluster, storage) == []


async def test_changes_of_other_replicas_are_no_problems(cluster: Any, worker: Any) -> None:
    """What another replica rightfully changed is taken over, not reported."""
    async with cluster.replica() as (one, _), cluster.replica() as (two, _):
        await one.commit([], inserts=[worker("ann"), worker("bob")])
        assert await two.check() == []
        assert len(two.workers) == 2


async def test_every_wrong_row_is_named(cluster: Any, worker: Any, grant: Any) -> None:
    """Changed, rolled back, missing and put back rows of several tables are all in one report, each by its name."""
    async with cluster.replica() as (authority, _):
        names = ("ann", "bob", "cid", "dan", "eli")
        await authority.commit([], inserts=[*map(worker, names), grant("g1")])
        old = cluster.rows("worker", "name IN ('bob', 'dan')")
        await authority.commit([], updates=[worker("bob", disabled=True, rev=2)])
        await authority.commit([], deletes=[Delete(WorkerRecord, ("dan",), 1)])
        cluster.put("worker", old)
        cluster.sql(
            "UPDATE worker SET disabled = 1 WHERE name = 'ann'",
            "DELETE FROM worker WHERE name = 'cid'",
            "UPDATE grant_ SET ttl_s = 1",
        )
        problems = {(problem.table, problem.key): problem.message for problem in await authority.check() if problem.key}
        assert problems.keys() == {("worker", (name,)) for name in names[:4]} | {("grant_", ("g1",))}
        assert "does not fit its MAC" in problems["worker", ("ann",)]
        assert "at revision 1, this replica verified another one, revision 2" in problems["worker", ("bob",)]
        assert "missing" in problems["worker", ("cid",)]
        assert "put back or planted" in problems["worker", ("dan",)]


async def test_a_manifest_out_of_step_is_a_problem(cluster: Any, worker: Any) -> None:
    """An earlier manifest over rightful rows is reported as what it is."""
    async with cluster.replica() as (authority, _):
        old = cluster.rows("manifest", "kind = 'worker'")
        await authority.commit([], inserts=[worker("ann")])
        cluster.put("manifest", old)
        [problem] = await authority.check()
        assert (problem.table, problem.key) == ("worker", ())
        assert "revision 1, this replica verified revision 2" in problem.message


@pytest.mark.parametrize("how", ["changed", "unreadable"])
async def test_wrong_token_rows_are_found(cluster: Any, worker: Any, how: str) -> None:
    """Heads and versions of tokens are checked as well, though no manifest counts them."""
    at = worker("x").created_at
    head = TokenRecord(
        name="a/b", keyring="default", labels={}, disabled=True, current=1, latest=1, previous_valid_s=0,
        created_at=at, updated_at=at,
    )  # fmt: skip
    sealed = VersionRecord(
        token="a/b", version=1, stage="current", content_type="text/plain", keyring="default", data_key="k", fmt=1,
        sealed=b"sealed", created_at=at, created_by="root",
    )  # fmt: skip
    async with cluster.replica() as (authority, storage):
        await authority.commit([], inserts=[head, sealed])
        wrong = "disabled = 0" if how == "changed" else "labels = 'nonsense'"
        cluster.sql(f"UPDATE token SET {wrong}", "UPDATE version SET sealed = x'00'")
        for problems in (await authority.check(), await find(cluster, storage)):
            assert [problem.table for problem in problems] == ["token", "version"]
            assert all("a/b" in problem.message for problem in problems)


async def test_forged_rows_are_listed_of_a_database_that_does_not_load(cluster: Any, worker: Any) -> None:
    """The operator of a refused database learns of every row with a wrong MAC, not only of the first."""
    async with cluster.replica() as (authority, _):
        await authority.commit([], inserts=[*map(worker, ("ann", "bob", "cid"))])
    cluster.sql(
        "UPDATE worker SET disabled = 1 WHERE name <> 'bob'", "UPDATE manifest SET rev = 9 WHERE kind = 'admin'"
    )
    async with cluster.open() as storage:
        found = {(problem.table, problem.key) for problem in await find(cluster, storage)}
    assert found == {("worker", ("ann",)), ("worker", ("cid",)), ("manifest", ("admin",))}
