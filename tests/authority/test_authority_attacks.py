"""The attacker's catalogue: what somebody with write access to the database may try, and how each try is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from broker.authority.errors import RowForged, TableAltered, TableRolledBack
from broker.errors import Tampered
from storage.port import Delete
from storage.records import WorkerRecord

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class Past:
    """Copies that the attacker kept: all of them once were rightful rows with rightful MACs."""

    bob_enabled: Rows
    cid: Rows
    manifest: Rows
    stranger: Rows


@pytest.fixture
async def past(cluster: Any, other_cluster: Any, worker: Any, grant: Any) -> Past:
    """ann, bob (then disabled), cid (then removed), one grant; and another cluster's worker, dan."""
    async with other_cluster.replica() as (authority, _):
        await authority.commit([], inserts=[worker("dan")])
    async with cluster.replica() as (authority, _):
        await authority.commit([], inserts=[worker("ann"), worker("bob"), worker("cid"), grant("g1")])
        past = Past(
            bob_enabled=cluster.rows("worker", "name = 'bob'"),
            cid=cluster.rows("worker", "name = 'cid'"),
            manifest=cluster.rows("manifest", "kind = 'worker'"),
            stranger=other_cluster.rows("worker", "name = 'dan'"),
        )
        bob = authority.workers.get(("bob",))
        await authority.commit([], updates=[msgspec.structs.replace(bob, disabled=True, rev=2)])
        await authority.commit([], deletes=[Delete(WorkerRecord, ("cid",), 1)])
    return past


def swap(cluster: Any) -> None:
    """Exchange everything but the names of ann and bob."""
    columns = 'rev, "groups", auth, "keys", labels, single_session, disabled, created_at, expires_at, mac'
    cluster.sql(
        "CREATE TEMP TABLE both AS SELECT * FROM worker WHERE name IN ('ann', 'bob')",
        f"UPDATE worker SET ({columns}) = (SELECT {columns} FROM both WHERE both.name <> worker.name)"
        " WHERE name IN ('ann', 'bob')",
    )


def duplicate(cluster: Any) -> None:
    """Make the table anew without its key, and store ann twice."""
    ddl = cluster.sql("SELECT sql FROM sqlite_master WHERE name = 'worker'")[0][0]
    loose = ddl.replace(',\n  PRIMARY KEY ("name")', "")
    assert loose != ddl
    cluster.sql(
        "CREATE TABLE kept AS SELECT * FROM worker",
        "DROP TABLE worker",
        loose,
        "INSERT INTO worker SELECT * FROM kept",
        "INSERT INTO worker SELECT * FROM kept WHERE name = 'ann'",
        "DROP TABLE kept",
    )


def forge(cluster: Any) -> None:
    """Copy ann under the name eve, with a MAC out of thin air."""
    cluster.sql(
        "CREATE TEMP TABLE eve AS SELECT * FROM worker WHERE name = 'ann'",
        ("UPDATE eve SET name = 'eve', mac = ?", (os.urandom(32),)),
        "INSERT INTO worker SELECT * FROM eve",
    )


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One try. names: the row that the error must name. told: keys that the attacker announces in the feed."""

    run: Callable[[Any, Past], None]
    error: type[Tampered]
    names: str
    table: str = "worker"
    told: tuple[str, ...] = ()


ROW_ATTACKS = {
    "forged": Attack(run=lambda c, _: forge(c), error=RowForged, names="eve", told=("eve",)),
    "without a MAC": Attack(
        run=lambda c, _: c.sql("UPDATE worker SET mac = x'' WHERE name = 'ann'"),
        error=RowForged,
        names="ann",
        told=("ann",),
    ),
    "column changed": Attack(
        run=lambda c, _: c.sql("UPDATE worker SET disabled = 0 WHERE name = 'bob'"),
        error=RowForged,
        names="bob",
        told=("bob",),
    ),
    "list changed": Attack(
        run=lambda c, _: c.sql("""UPDATE worker SET "groups" = '["admins"]' WHERE name = 'ann'"""),
        error=RowForged,
        names="ann",
        told=("ann",),
    ),
    "revision changed": Attack(
        run=lambda c, _: c.sql("UPDATE worker SET rev = 9 WHERE name = 'ann'"),
        error=RowForged,
        names="ann",
        told=("ann",),
    ),
    "not readable": Attack(
        run=lambda c, _: c.sql("UPDATE worker SET \"groups\" = 'nonsense' WHERE name = 'ann'"),
        error=RowForged,
        names="ann",
        told=("ann",),
    ),
    "grant widened": Attack(
        run=lambda c, _: c.sql("UPDATE grant_ SET pattern = '**'"),
        error=RowForged,
        names="g1",
        table="grant_",
        told=("g1",),
    ),
    "moved to another key": Attack(
        run=lambda c, _: c.sql("UPDATE worker SET name = 'eve' WHERE name = 'ann'"),
        error=RowForged,
        names="eve",
        told=("ann", "eve"),
    ),
    "contents swapped": Attack(run=lambda c, _: swap(c), error=RowForged, names="ann", told=("ann", "bob")),
    "from another cluster": Attack(
        run=lambda c, past: c.put("worker", past.stranger), error=RowForged, names="dan", told=("dan",)
    ),
    "manifest forged": Attack(
        run=lambda c, _: c.sql("UPDATE manifest SET count = 9 WHERE kind = 'worker'"), error=RowForged, names="worker"
    ),
    "manifest of another table": Attack(
        run=lambda c, _: c.sql(
            "UPDATE manifest SET (count, digest, mac, rev) ="
            " (SELECT count, digest, mac, rev FROM manifest WHERE kind = 'admin') WHERE kind = 'worker'"
        ),
        error=RowForged,
        names="worker",
    ),
}
"""One row is wrong by itself."""

SET_ATTACKS = {
    "rolled back": Attack(
        run=lambda c, past: c.put("worker", past.bob_enabled), error=TableAltered, names="bob", told=("bob",)
    ),
    "deleted": Attack(
        run=lambda c, _: c.sql("DELETE FROM worker WHERE name = 'bob'"), error=TableAltered, names="bob", told=("bob",)
    ),
    "put back after deletion": Attack(
        run=lambda c, past: c.put("worker", past.cid), error=TableAltered, names="cid", told=("cid",)
    ),
    "one put back for another": Attack(
        run=lambda c, past: (c.sql("DELETE FROM worker WHERE name = 'ann'"), c.put("worker", past.cid))[0],
        error=TableAltered,
        names="cid",
        told=("ann", "cid"),
    ),
    "manifest deleted": Attack(
        run=lambda c, _: c.sql("DELETE FROM manifest WHERE kind = 'worker'"), error=TableAltered, names="worker"
    ),
}
"""Every row is rightful by itself, the set of them is not."""


@pytest.mark.parametrize("name", ROW_ATTACKS)
async def test_a_wrong_row_is_named_at_load(cluster: Any, past: Past, name: str) -> None:
    """A database with a wrong row is not loaded, and the error names the row and its table."""
    attack = ROW_ATTACKS[name]
    attack.run(cluster, past)
    with pytest.raises(attack.error, match=rf"{attack.names}.*table|table.*{attack.names}") as refused:
        async with cluster.replica():
            pass
    assert attack.table in str(refused.value)


@pytest.mark.parametrize("name", SET_ATTACKS)
async def test_a_wrong_set_is_refused_at_load(cluster: Any, past: Past, name: str) -> None:
    """A table whose rows are each rightful but not the set that was signed is not loaded, and the error names it."""
    attack = SET_ATTACKS[name]
    attack.run(cluster, past)
    with pytest.raises(attack.error, match="table worker"):
        async with cluster.replica():
            pass


@pytest.mark.parametrize("name", [*ROW_ATTACKS, *SET_ATTACKS])
async def test_a_running_replica_refuses_and_keeps_what_it_verified(
    cluster: Any, news: Any, past: Past, name: str
) -> None:
    """A replica that is told to look raises, names the row, and its books stay as they were."""
    attack = (ROW_ATTACKS | SET_ATTACKS)[name]
    async with cluster.replica() as (authority, storage):
        before = {row.key: row for row in authority.workers}
        generation = authority.workers.generation
        attack.run(cluster, past)
        cluster.announce(attack.table, *attack.told)
        with pytest.raises(attack.error, match=attack.names):
            await news(authority, storage)
        assert {row.key: row for row in authority.workers} == before
        assert authority.workers.generation == generation


async def test_a_row_stored_twice_is_refused_at_load(cluster: Any, past: Past) -> None:
    """A table remade without its key, holding one row twice, is not loaded."""
    duplicate(cluster)
    with pytest.raises(TableAltered, match="'ann' of table worker is stored twice"):
        async with cluster.replica():
            pass


async def test_rolling_back_row_and_manifest_together_is_caught_while_running(
    cluster: Any, news: Any, past: Past
) -> None:
    """An earlier state that fits itself is refused by a replica that verified a later one, announced or not."""
    async with cluster.replica() as (authority, storage):
        cluster.put("worker", past.bob_enabled + past.cid)
        cluster.put("manifest", past.manifest)
        with pytest.raises(TableRolledBack, match="table worker"):
            await news(authority, storage)
        assert authority.workers.get(("bob",)).disabled


async def test_another_state_of_the_same_revision_is_refused(cluster: Any, news: Any, past: Past, worker: Any) -> None:
    """Of two states that both follow on the same one, a replica takes only the one it saw."""
    before = cluster.rows("manifest", "kind = 'worker'")
    async with cluster.replica() as (authority, _):
        await authority.commit([], inserts=[worker("fork-a")])
        fork = cluster.rows("manifest", "kind = 'worker'"), cluster.rows("worker", "name = 'fork-a'")
    cluster.sql("DELETE FROM worker WHERE name = 'fork-a'")
    cluster.put("manifest", before)
    async with cluster.replica() as (authority, storage):
        await authority.commit([], inserts=[worker("fork-b")])
        cluster.sql("DELETE FROM worker WHERE name = 'fork-b'")
        cluster.put("manifest", fork[0])
        cluster.put("worker", fork[1])
        with pytest.raises(TableRolledBack, match="another one of revision"):
            await news(authority, storage)


async def test_the_wrong_root_key_opens_nothing(cluster: Any, other_cluster: Any, past: Past) -> None:
    """A database is refused whole by a broker that holds another root key."""
    thief = type(cluster)(path=cluster.path, root=other_cluster.root, cluster_id=cluster.cluster_id)
    with pytest.raises(RowForged):
        async with thief.replica():
            pass


async def test_a_commit_on_top_of_a_changed_row_does_not_launder_it(cluster: Any, past: Past) -> None:
    """A commit signs what the replica verified: a row that was changed behind its back is no part of the new set."""
    async with cluster.replica() as (authority, _):
        cluster.put("worker", past.cid)
        ann = authority.workers.get(("ann",))
        await authority.commit([], updates=[msgspec.structs.replace(ann, groups=("ops",), rev=2)])
    with pytest.raises(TableAltered, match="2 rows are signed for, 3 are there"):
        async with cluster.replica():
            pass


@pytest.mark.parametrize("how", ["deleted", "rolled back"])
async def test_changing_a_row_that_was_tampered_with_says_so(cluster: Any, past: Past, how: str) -> None:
    """A commit that meets another row than the replica verified is refused as tampering, not as somebody's race."""
    async with cluster.replica() as (authority, _):
        SET_ATTACKS[how].run(cluster, past)
        bob = authority.workers.get(("bob",))
        with pytest.raises(TableAltered, match="bob"):
            await authority.commit([], updates=[msgspec.structs.replace(bob, groups=("ops",), rev=3)])


async def test_what_an_attacker_writes_into_keys_cannot_disturb_the_message(cluster: Any, past: Past) -> None:
    """A forged key with control characters, or of great length, is shown escaped and short."""
    cluster.sql(
        "CREATE TEMP TABLE eve AS SELECT * FROM worker WHERE name = 'ann'",
        ("UPDATE eve SET name = ?", ("\x1b[2J\n" + "A" * 10_000,)),
        "INSERT INTO worker SELECT * FROM eve",
    )
    with pytest.raises(RowForged) as refused:
        async with cluster.replica():
            pass
    assert "\x1b" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


async def test_lines_of_the_feed_that_name_no_row_are_harmless(cluster: Any, news: Any, past: Past) -> None:
    """Keys that no authority row could have are read from the feed and lead to nothing."""
    async with cluster.replica() as (authority, storage):
        for key in ('["ann", "x"]', "[1]", "[]", '["nobody"]'):
            cluster.sql(('INSERT INTO feed ("table", "key") VALUES (?, ?)', ("worker", key)))
        generation = authority.workers.generation
        await news(authority, storage)
        assert authority.workers.generation == generation
