"""Lines taken out of the feed, one table spoilt to hold up another: what this replica knows is told all the same."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from broker.authority.errors import RowForged
from storage.port import Delete
from storage.records import GrantRecord, TokenRecord

HIDE = 'CREATE TRIGGER hide AFTER INSERT ON feed BEGIN DELETE FROM feed WHERE "position" = NEW."position"; END'


async def told(authority: Any, storage: Any, looks: int = 2) -> list[tuple[str, Any]]:
    """What so many turns of the pump tell."""
    names = []
    for _ in range(looks):
        names += [
            (change.table, change.key) for change in await authority.refresh(await storage.feed(authority.position))
        ]
    return names


async def test_a_replicas_own_change_is_told_without_the_feed(cluster: Any, grant: Any) -> None:
    """A grant that this replica removed is told by the second look, though its line was deleted as it was written."""
    async with cluster.replica() as (authority, storage):
        await authority.commit([], inserts=[grant("g1")])
        await told(authority, storage)
        cluster.sql(HIDE)
        await authority.commit([], deletes=[Delete(GrantRecord, ("g1",), 1)])
        assert await told(authority, storage, looks=1) == []
        assert await told(authority, storage, looks=1) == [("grant_", ("g1",))]
        assert await told(authority, storage) == []


async def test_a_token_that_this_replica_changed_is_told_without_the_feed(cluster: Any, grant: Any) -> None:
    """Tokens have no manifest, so this is the only way in which a hidden change of one is noticed."""
    at = grant("g1").created_at
    token = TokenRecord(
        name="github/ci",
        keyring="default",
        labels={},
        disabled=False,
        current=0,
        latest=0,
        previous_valid_s=0,
        created_at=at,
        updated_at=at,
    )
    async with cluster.replica() as (authority, storage):
        cluster.sql(HIDE)
        await authority.commit([], inserts=[token])
        assert await told(authority, storage) == [(TokenRecord.table.name, ("github/ci",))]


async def test_a_change_that_the_feed_names_is_told_once(cluster: Any, grant: Any, news: Any) -> None:
    """Telling without the feed makes no second announcement of what the feed has announced."""
    async with cluster.replica() as (authority, storage):
        await authority.commit([], inserts=[grant("g1")])
        names = [change.key for _ in range(4) for change in await news(authority, storage)]
        assert names == [("g1",)]


async def test_a_change_met_while_committing_is_told_without_the_feed(cluster: Any, grant: Any) -> None:
    """What a replica takes over from another to make its own commit fit reaches its listeners too."""
    async with cluster.replica() as (one, storage), cluster.replica() as (two, _):
        cluster.sql(HIDE)
        await one.commit([], inserts=[grant("g1")])
        await two.commit([], inserts=[grant("g2")])
        assert set(await told(two, storage)) == {("grant_", ("g1",)), ("grant_", ("g2",))}


async def test_a_change_met_while_checking_is_told_without_the_feed(cluster: Any, grant: Any) -> None:
    """The same for what an examination of the whole database takes over."""
    async with cluster.replica() as (one, storage), cluster.replica() as (two, _):
        cluster.sql(HIDE)
        await one.commit([], inserts=[grant("g1")])
        assert await two.check() == []
        assert await told(two, storage) == [("grant_", ("g1",))]


@pytest.mark.parametrize("spoilt", ["admin", "worker"])
async def test_a_spoilt_table_does_not_hold_up_the_others(cluster: Any, grant: Any, spoilt: str) -> None:
    """Whoever spoils one table keeps no right that another table has taken away: that change is known, and told."""
    async with cluster.replica() as (one, _), cluster.replica() as (two, storage):
        await one.commit([], inserts=[grant("g1")])
        await told(two, storage)
        cluster.sql(f"UPDATE manifest SET count = count + 1 WHERE kind = '{spoilt}'")
        await one.commit([], deletes=[Delete(GrantRecord, ("g1",), 1)])
        with pytest.raises(RowForged):
            await two.refresh([])
        assert two.grants.get(("g1",)) is None
        assert [change.key for change in two.pending()] == [("g1",)]
        assert two.pending() == []


async def test_what_was_pending_is_told_when_the_table_is_mended(cluster: Any, grant: Any) -> None:
    """A caller that did not ask for it loses nothing."""
    async with cluster.replica() as (one, _), cluster.replica() as (two, storage):
        cluster.sql("UPDATE manifest SET count = count + 1 WHERE kind = 'admin'")
        await one.commit([], inserts=[grant("g1")])
        with pytest.raises(RowForged):
            await two.refresh([])
        cluster.sql("UPDATE manifest SET count = count - 1 WHERE kind = 'admin'")
        assert set(await told(two, storage, looks=1)) == {("grant_", ("g1",))}
        assert msgspec.structs.replace(two.grants.get(("g1",)), mac=b"") == grant("g1")
