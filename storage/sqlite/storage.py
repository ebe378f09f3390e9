"""The port on one SQLite file: glue between committer, readers and the SQL, and the errors of each.

Opening and closing is in `opening`; copying in `backup`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from storage.bounds import check_count, check_keys, check_page
from storage.codec import instant_to_int
from storage.errors import Unavailable
from storage.group_commit import Committer
from storage.news import News
from storage.port import PAGE_MAX, Change, Commit, Committed, Health, Page
from storage.sqlite import reader
from storage.sqlite.backup import write_backup
from storage.sqlite.readers import Readers
from storage.sqlite.statements import Catalog
from storage.sqlite.thread import ThreadedConnection
from storage.sqlite.writer import Writer
from storage.table import Key, R, Record
from storage.work import prepare

T = TypeVar("T")


class SqliteStorage:
    """`storage.port.Storage` and `storage.port.Backup` on one SQLite file. Made by `open_sqlite`."""

    def __init__(
        self,
        *,
        path: Path,
        catalog: Catalog,
        writer: Writer,
        thread: ThreadedConnection,
        readers: Readers,
        answer_s: float,
    ) -> None:
        self._path = path
        self._catalog = catalog
        self._codecs = {kind: table.codec for kind, table in catalog.items()}
        self._writer = writer
        self._thread = thread
        self._readers = readers
        self._answer_s = answer_s
        self._closed = False
        self._news = News()
        self._committer = Committer(
            submit=lambda works: thread.submit(lambda _: writer.commit_group(works)),
            announced=self._news.announce,
            answer_s=answer_s,
        )

    async def get(self, kind: type[R], key: Key) -> R | None:
        """See the port."""
        record: R | None = await self._readers.run(reader.get, self._catalog[kind], key)
        return record

    async def get_many(self, kind: type[R], keys: Sequence[Key]) -> dict[Key, R]:
        """See the port."""
        check_keys(len(keys))
        if not keys:
            return {}
        return await self._readers.run(reader.get_many, self._catalog[kind], tuple(keys))

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
        """See the port."""
        check_page(limit)
        table = self._catalog[kind]
        sql, parameters = table.select(
            index=index, prefix=prefix, where=where or {}, after=after, descending=descending
        )
        return await self._readers.run(reader.select, table, index=index, sql=sql, parameters=parameters, limit=limit)

    async def count(self, kind: type[Record], *, index: str = "key", prefix: Key = (), limit: int) -> int:
        """See the port."""
        check_count(limit)
        sql = self._catalog[kind].count(index=index, prefix=prefix)
        return await self._readers.run(reader.count, sql, (*prefix, limit))

    async def due(self, kind: type[R], column: str, before: datetime, limit: int = PAGE_MAX) -> list[R]:
        """See the port."""
        check_page(limit)
        table = self._catalog[kind]
        table.codec.due_column(column)
        return await self._readers.run(reader.due, table, column, instant_to_int(before), limit)

    async def commit(self, commit: Commit) -> Committed:
        """See the port."""
        return await self._committer.commit(prepare(commit, self._codecs))

    async def feed(self, after: int, limit: int = PAGE_MAX) -> list[Change]:
        """See the port."""
        check_page(limit)
        return await self._readers.run(reader.feed, after, limit)

    async def wait(self, after: int, timeout_s: float) -> None:
        """See the port."""
        await self._news.wait(after, timeout_s, self.position)

    async def position(self) -> int:
        """See the port."""
        return await self._readers.run(reader.position)

    async def prune(self, kind: type[Record], column: str, before: datetime, limit: int = PAGE_MAX) -> int:
        """See the port."""
        check_page(limit)
        table = self._catalog[kind]
        table.codec.due_column(column)
        return await self._write(lambda: self._writer.prune(table, column, instant_to_int(before), limit))

    async def prune_feed(self, up_to: int) -> None:
        """See the port."""
        while await self._write(lambda: self._writer.prune_feed(up_to)):
            pass

    async def check(self) -> Health:
        """See the port."""
        await self._write(self._writer.touch)
        facts = await self._readers.run(reader.facts, self._path)
        return Health(schema=int(facts["schema"]), facts=facts)

    async def backup(self, path: Path) -> None:
        """See the port. A connection of its own, so that neither reads nor commits wait for it."""
        if self._closed:
            raise Unavailable("storage is closed")
        await write_backup(self._path, path)

    async def close(self) -> None:
        """Refuse what comes, answer what was accepted. The connections are closed by who opened them."""
        self._closed = True
        self._readers.close()
        await self._committer.close()

    async def _write(self, function: Callable[[], T]) -> T:
        if self._closed:
            raise Unavailable("storage is closed")
        try:
            async with asyncio.timeout(self._answer_s):
                return await self._thread.submit(lambda _: function())
        except TimeoutError:
            raise Unavailable(f"the disk has not answered for {self._answer_s:g} s; retry later") from None
