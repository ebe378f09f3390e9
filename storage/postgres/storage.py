"""The port on one PostgreSQL database: reads, and glue between group commit, news and the SQL.

Opening and closing is in `opening`; what a commit is made of in `writer`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from storage.bounds import check_count, check_keys, check_page
from storage.codec import instant_to_int
from storage.errors import Damaged, StorageError
from storage.group_commit import Committer
from storage.news import News
from storage.port import PAGE_MAX, Change, Commit, Committed, Health, Page
from storage.postgres.cells import row_of, stored, unescaped
from storage.postgres.connecting import Connector
from storage.postgres.connections import Connections
from storage.postgres.moment import open_moment
from storage.postgres.statements import Catalog
from storage.postgres.writer import Writer
from storage.sqlite.loading import write_portable
from storage.table import Key, R, Record
from storage.work import Outcome, Work, key_from_json, prepare

FEED_PRUNE_BATCH = 10_000
"""Feed lines deleted by one statement."""


class PostgresStorage:
    """`storage.port.Storage` and `storage.port.Backup` on one PostgreSQL database. Made by `open_postgres`."""

    def __init__(
        self,
        *,
        connections: Connections,
        connector: Connector,
        catalog: Catalog,
        schema: int,
        news: News,
        tasks: asyncio.TaskGroup,
        answer_s: float,
    ) -> None:
        self._connections = connections
        self._connector = connector
        self._catalog = catalog
        self._codecs = {kind: table.codec for kind, table in catalog.items()}
        self._schema = schema
        self._news = news
        self._tasks = tasks
        self._writer = Writer(connections=connections, catalog=catalog)
        self._committer = Committer(submit=self._submit, announced=news.announce, answer_s=2 * answer_s)

    async def get(self, kind: type[R], key: Key) -> R | None:
        """See the port."""
        table = self._catalog[kind]
        row = await self._connections.run(lambda each: each.fetchrow(table.get, *map(stored, key)))
        record: R | None = None if row is None else table.codec.from_row(row_of(row))
        return record

    async def get_many(self, kind: type[R], keys: Sequence[Key]) -> dict[Key, R]:
        """See the port."""
        check_keys(len(keys))
        if not keys:
            return {}
        table = self._catalog[kind]
        columns = [[stored(cell) for cell in cells] for cells in zip(*keys, strict=True)]
        found = await self._connections.run(lambda each: each.fetch(table.get_many, *columns))
        rows = [row_of(row) for row in found]
        return {table.codec.key_of(row): table.codec.from_row(row) for row in rows}

    async def select(
        self,
        kind: type[R],
        *,
        index: str = "key",
        prefix: Key = (),
        where: Mapping[str, str | int | None] | None = None,
        after: Key | None = None,
        descending: bool = False,
        limit: int = PAGE_MAX,
    ) -> Page[R]:
        """See the port. One row more is read, so as to know whether another page follows."""
        check_page(limit)
        table = self._catalog[kind]
        sql, parameters = table.select(
            index=index, prefix=prefix, where=where or {}, after=after, descending=descending, limit=limit + 1
        )
        rows = [row_of(row) for row in await self._connections.run(lambda each: each.fetch(sql, *parameters))]
        more = len(rows) > limit
        del rows[limit:]
        return Page(
            records=[table.codec.from_row(row) for row in rows],
            next=table.order_of(rows[-1], index) if more else None,
        )

    async def count(self, kind: type[Record], *, index: str = "key", prefix: Key = (), limit: int) -> int:
        """See the port."""
        check_count(limit)
        sql = self._catalog[kind].count(index=index, prefix=prefix)
        return int(await self._connections.run(lambda each: each.fetchval(sql, *map(stored, prefix), limit)))

    async def due(self, kind: type[R], column: str, before: datetime, limit: int = PAGE_MAX) -> list[R]:
        """See the port."""
        check_page(limit)
        table = self._catalog[kind]
        sql = table.due(column)
        found = await self._connections.run(lambda each: each.fetch(sql, instant_to_int(before), limit))
        return [table.codec.from_row(row_of(row)) for row in found]

    async def commit(self, commit: Commit) -> Committed:
        """See the port."""
        return await self._committer.commit(prepare(commit, self._codecs))

    async def feed(self, after: int, limit: int = PAGE_MAX) -> list[Change]:
        """See the port."""
        check_page(limit)
        sql = 'SELECT position, "table", key FROM tokenbroker.feed WHERE position > $1 ORDER BY position LIMIT $2'
        rows = await self._connections.run(lambda each: each.fetch(sql, after, limit))
        try:
            return [Change(position, unescaped(table), key_from_json(key)) for position, table, key in rows]
        except msgspec.MsgspecError:
            raise Damaged(f"a line of the feed behind position {after} cannot be read; restore a backup") from None

    async def wait(self, after: int, timeout_s: float) -> None:
        """See the port."""
        await self._news.wait(after, timeout_s, self.position)

    async def position(self) -> int:
        """See the port."""
        return int(
            await self._connections.run(lambda each: each.fetchval("SELECT position FROM tokenbroker.feed_head"))
        )

    async def prune(self, kind: type[Record], column: str, before: datetime, limit: int = PAGE_MAX) -> int:
        """See the port."""
        check_page(limit)
        sql = self._catalog[kind].prune(column)
        return _count(await self._connections.run(lambda each: each.execute(sql, instant_to_int(before), limit)))

    async def prune_feed(self, up_to: int) -> None:
        """See the port."""
        doomed = "SELECT position FROM tokenbroker.feed WHERE position <= $1 ORDER BY position LIMIT $2"
        sql = f"DELETE FROM tokenbroker.feed WHERE position IN ({doomed})"  # noqa: S608 - constants only
        while (
            _count(await self._connections.run(lambda each: each.execute(sql, up_to, FEED_PRUNE_BATCH)))
            == FEED_PRUNE_BATCH
        ):
            pass

    async def now(self) -> datetime:
        """See `storage.port.Shared`."""
        now: datetime = await self._connections.run(lambda each: each.fetchval("SELECT clock_timestamp()"))
        return now

    async def check(self) -> Health:
        """See the port."""
        await self._connections.run(lambda each: each.execute("UPDATE tokenbroker.health SET checks = checks + 1"))
        row = await self._connections.run(
            lambda each: each.fetchrow(
                "SELECT current_setting('server_version') AS engine, "
                "pg_database_size(current_database()) AS bytes, "
                "current_setting('synchronous_commit') AS synchronous_commit"
            )
        )
        facts: dict[str, str | int] = {
            "engine": f"postgresql {row['engine']}",
            "schema": self._schema,
            "bytes": int(row["bytes"]),
            "synchronous_commit": str(row["synchronous_commit"]),
            "connections": self._connections.size,
        }
        return Health(schema=self._schema, facts=facts)

    async def backup(self, path: Path) -> None:
        """See the port. An SQLite file of one moment; a connection of its own, so that no commit waits for it."""
        async with open_moment(self._connector, self._catalog) as moment:
            await write_portable(moment, path)

    async def close(self) -> None:
        """Refuse what comes, answer what was accepted. The connections are closed by who opened them."""
        await self._committer.close()
        self._connections.close()

    def _submit(self, works: Sequence[Work]) -> asyncio.Future[list[Outcome]]:
        return self._tasks.create_task(self._outcomes(works))

    async def _outcomes(self, works: Sequence[Work]) -> list[Outcome]:
        """What became of each; a failure of the whole group is everybody's, an instance each."""
        try:
            return await self._writer.commit_group(works)
        except StorageError as error:
            return [type(error)(*error.args) for _ in works]


def _count(tag: str) -> int:
    """The number of rows in a command tag such as `DELETE 3`."""
    return int(tag.rpartition(" ")[2])
