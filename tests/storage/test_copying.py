"""Copies of whole databases: equal row by row whatever adapters are between, and every difference is named."""

from __future__ import annotations

import asyncio
import stat
import tempfile
from collections.abc import Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec.inspect as types
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from storage import records
from storage.catalog import open_loading, open_storage
from storage.conformance.samples import following, lease, sample
from storage.copying import DIFFERENCES_MAX, ORDER, PAGE_BYTES_WANTED, compare, copy_records, fingerprint
from storage.errors import Refused, Unavailable
from storage.port import PAGE_MAX, Backup, Commit, Page, Storage
from storage.records import AuditBlockRecord, LeaseRecord, TokenRecord, VersionRecord
from storage.sqlite import restore_sqlite
from storage.sqlite.loading import write_portable
from storage.table import Key, R, Record

TEXT = st.text(max_size=8) | st.sampled_from(["\0", "\1", "\1\1\0", "a\0b", "𐀀", "\uffff"])


def _values(hint: types.Type) -> st.SearchStrategy[Any]:  # noqa: PLR0911 - one line per shape of hint
    match hint:
        case types.LiteralType(values=values):
            return st.sampled_from(sorted(values, key=str))
        case types.StrType():
            return TEXT
        case types.IntType():
            return st.integers(-(2**63), 2**63 - 1)
        case types.FloatType():
            return st.floats(allow_nan=False)
        case types.BytesType():
            return st.binary(max_size=8)
        case types.BoolType():
            return st.booleans()
        case types.DateTimeType():
            return st.datetimes(min_value=datetime(1960, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - as it wants
        case types.UnionType(types=members):
            return st.one_of(_values(each) for each in members)
        case types.NoneType():
            return st.none()
        case types.VarTupleType(item_type=item):
            return st.lists(_values(item), max_size=2).map(tuple)
        case types.DictType(key_type=key, value_type=value):
            return st.dictionaries(_values(key), _values(value), max_size=2)
        case types.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: _values(field.type) for field in fields})
    raise TypeError(f"no values for {hint!r}")


def _record(kind: type[Record]) -> st.SearchStrategy[Record]:
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    fields = {field.name: _values(field.type) for field in info.fields}
    if kind is AuditBlockRecord:
        fields |= {name: st.integers(0, 2**40) for name in ("log", "seq", "count")}
    return st.builds(kind, **fields)


DATABASES = st.lists(
    st.sampled_from(records.ALL).flatmap(_record), max_size=8, unique_by=lambda record: (type(record), record.key)
)
LONG = (sample(VersionRecord, 1, sealed=bytes(range(256)) * 4096), lease(1, reason="x\0" * 50_000))


async def _fill(url: str, rows: Sequence[Record], position: int = 0) -> None:
    async with open_loading(url, "test") as target:
        for row in rows:
            await target.load([row])
        await target.finish(position)


async def _copied(source_url: str, target_url: str) -> None:
    async with open_storage(source_url) as source, open_loading(target_url, await fingerprint(source)) as target:
        await copy_records(source, target, lambda _kind, _count: None)
        await target.finish(await source.position())


async def _rows(url: str) -> list[Record]:
    async with open_storage(url) as storage:
        found: list[Record] = []
        for kind in records.ALL:
            found += (await storage.select(kind)).records
        return found


@settings(max_examples=8, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(rows=DATABASES, position=st.integers(0, 2**60))
def test_there_and_back_is_the_same_row_by_row(postgres: Any, rows: list[Record], position: int) -> None:
    """SQLite to PostgreSQL to SQLite: every row is equal, NUL and long bytes too, and the position stays."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = f"sqlite:///{folder}/first.db", f"sqlite:///{folder}/second.db"
        asyncio.run(_there_and_back(first, postgres.url(postgres.create()), second, [*rows, *LONG], position))


async def _there_and_back(first: str, between: str, second: str, rows: list[Record], position: int) -> None:
    await _fill(first, rows, position)
    await _copied(first, between)
    await _copied(between, second)
    wanted = {(type(row), row.key): row for row in rows}
    for url in (between, second):
        found = await _rows(url)
        assert {(type(row), row.key): row for row in found} == wanted
        assert len(found) == len(rows)
        async with open_storage(url) as storage:
            assert await storage.position() == position


async def test_pages_are_bounded_by_bytes() -> None:
    """Values of 64 KiB are read in pages of about PAGE_BYTES_WANTED, small rows in pages of PAGE_MAX."""
    async with open_loading("memory:bounded", "test") as loading:
        big = [sample(VersionRecord, n, sealed=b"x" * 65_536) for n in range(300)]
        for start in range(0, 300, 100):
            await loading.load(big[start : start + 100])
        for start in range(0, 5000, 1000):
            await loading.load([lease(start + n) for n in range(1000)])
        await loading.finish(0)
        async with open_storage("memory:bounded") as inner, open_loading("memory:", "test") as target:
            source = _Watching(inner)
            await copy_records(source, target, lambda _kind, _count: None)
    assert max(map(len, source.pages[VersionRecord])) <= PAGE_BYTES_WANTED // 65_536
    assert max(map(len, source.pages[LeaseRecord])) == PAGE_MAX


class _Watching:
    """A moment that remembers its pages."""

    def __init__(self, inner: Storage) -> None:
        self._inner = inner
        self.pages: dict[type[Record], list[list[Any]]] = {kind: [[]] for kind in records.ALL}

    async def select(self, kind: type[R], *, after: Key | None = None, limit: int = PAGE_MAX) -> Page[R]:
        page = await self._inner.select(kind, after=after, limit=limit)
        self.pages[kind].append(page.records)
        return page

    async def position(self) -> int:
        return await self._inner.position()


async def _differences(left: Sequence[Record], right: Sequence[Record]) -> tuple[int, tuple[str, ...]]:
    async with open_loading("memory:", "left") as source, open_loading("memory:", "right") as target:
        for side, rows in ((source, left), (target, right)):
            for row in rows:
                await side.load([row])
        seen: list[Record] = []
        found = await compare(source, target, TokenRecord, seen.append)
        assert [row.key for row in seen] == sorted({row.key for row in left if row in right})
        assert found.count == len(left)
        return found.differing, found.named


@pytest.mark.parametrize("at", [0, 3, 6])
async def test_every_kind_of_difference_is_named(at: int) -> None:
    """At the beginning, in the middle and at the end: a row that is missing, one too many, and one that differs."""
    rows = [sample(TokenRecord, n) for n in range(7)]
    less = [*rows[:at], *rows[at + 1 :]]
    other = [*rows[:at], following(rows[at]), *rows[at + 1 :]]
    name = f"'name-{at:06d}'"
    assert await _differences(rows, rows) == (0, ())
    assert await _differences(rows, less) == (1, (f"table token: ({name},) is missing",))
    assert await _differences(less, rows) == (1, (f"table token: ({name},) is there, and not in the source",))
    assert await _differences(rows, other) == (1, (f"table token: ({name},) differs",))


async def test_differences_are_counted_beyond_those_that_are_named() -> None:
    """Two hundred missing rows: all are counted, the first hundred are named."""
    differing, named = await _differences([sample(TokenRecord, n) for n in range(200)], [])
    assert (differing, len(named)) == (200, DIFFERENCES_MAX)


@asynccontextmanager
async def _filling(postgres: Any) -> Any:
    """A served PostgreSQL database with some leases."""
    async with open_storage(postgres.url(postgres.create())) as storage:
        await storage.commit(Commit(inserts=[lease(n) for n in range(500)]))
        yield storage


async def test_a_backup_of_postgresql_is_one_moment(postgres: Any, tmp_path: Path) -> None:
    """Commits go on during the backup; in the file each pair that was committed together is whole."""
    copy, restored = tmp_path / "copy", tmp_path / "restored.db"
    async with _filling(postgres) as storage:
        started, stop = asyncio.Event(), asyncio.Event()
        written = 0

        async def write() -> None:
            nonlocal written
            while not stop.is_set():
                pair = [sample(TokenRecord, written), sample(VersionRecord, written)]
                await storage.commit(Commit(inserts=pair, announce=[("token", pair[0].key)]))
                written += 1
                if written == 20:
                    started.set()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            await started.wait()
            before = written
            power: Backup = storage
            await power.backup(copy)
            during = written
            stop.set()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    restore_sqlite(copy, restored)
    async with open_storage(f"sqlite:///{restored}") as storage:
        tokens = await storage.count(TokenRecord, limit=100_000)
        assert await storage.count(VersionRecord, limit=100_000) == tokens == await storage.position()
        assert await storage.count(LeaseRecord, limit=100_000) == 500
    assert before <= tokens < during, "commits went on, and what came during the copy is not in it"


async def test_a_backup_of_postgresql_overwrites_nothing(postgres: Any, tmp_path: Path) -> None:
    """A file of that name: Refused, and it stays as it was."""
    copy = tmp_path / "copy"
    copy.write_text("precious")
    async with _filling(postgres) as storage:
        with pytest.raises(Refused, match="exists"):
            await storage.backup(copy)
    assert copy.read_text() == "precious"


async def test_a_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Reading breaks off in the middle: the error comes through, and no file and no part of one is left."""
    async with open_loading("memory:", "test") as source:
        await source.load([lease(n) for n in range(100)])
        with pytest.raises(Unavailable, match="cut off"):
            await write_portable(_CutOff(source), tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


class _CutOff(_Watching):
    """A moment whose database goes away at the second page of leases."""

    async def select(self, kind: type[R], *, after: Key | None = None, limit: int = PAGE_MAX) -> Page[R]:
        if kind is LeaseRecord and after is not None:
            raise Unavailable("cut off")
        return await super().select(kind, after=after, limit=limit)


async def test_two_do_not_fill_one_database(postgres: Any) -> None:
    """While one fills, the other is told Unavailable after ten seconds; once it has ended, another goes on."""
    url = postgres.url(postgres.create())
    async with open_loading(url, "a") as first:
        await first.load([lease(1)])
        with pytest.raises(Unavailable, match="somebody else"):
            await open_loading(url, "a").__aenter__()
    async with open_loading(url, "a") as second:
        assert (await second.select(LeaseRecord)).records == [lease(1)]


async def test_who_may_not_own_the_schema_may_not_fill_it(postgres: Any) -> None:
    """The broker's role is refused with a sentence, and the migrator's role fills what the broker's then serves."""
    name = postgres.create()
    postgres.give_roles(name)
    migrator = postgres.url(name, user="tokenbroker_migrator")
    broker = postgres.url(name, user="tokenbroker_broker")
    async with open_storage(migrator):
        pass
    with pytest.raises(Refused, match="only the role that owns the schema"):
        await open_loading(broker, "a").__aenter__()
    await _fill(migrator, [lease(1)])
    async with open_storage(broker) as storage:
        await storage.commit(Commit(updates=[following(lease(1))]))


async def test_a_pooler_is_no_way_to_fill(postgres: Any) -> None:
    """Through PgBouncer nobody could hold the lock: Refused."""
    with pytest.raises(Refused, match="PgBouncer"):
        await open_loading(postgres.url(postgres.create(), options="?pgbouncer=1"), "a").__aenter__()


def test_copies_know_every_record_type() -> None:
    """Each type is copied once, and the root last."""
    assert sorted(ORDER, key=str) == sorted(records.ALL, key=str)
    assert ORDER[-1] is records.RootRecord
