"""Laws of get and get_many: what comes back is what was stored, to the last bit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from storage import records
from storage.conformance.opener import Opener
from storage.conformance.samples import at, bare, following, lease, sample
from storage.errors import OutOfBounds
from storage.port import PAGE_MAX, Commit
from storage.records import LeaseRecord, TokenRecord, VersionRecord

TEXTS = (
    "",
    "a\0b",
    "\0",
    " ",
    'O\'Brien "x" \\',
    "Zürich 東京 🜚 \u200b\u202e",
    "é",
    "e\u0301",
    "\uffff",
    "x" * 100_000,
)
BINARIES = (b"", b"\0", bytes(range(256)), b"\xff" * 65_536)
INTEGERS = (0, 1, -1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, -(2**63))
FLOATS = (0.0, 0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -2.5, 1e15 + 0.3, float("inf"))


class KeepingLaws:
    """What is stored returns unchanged."""

    async def test_every_record_type_returns_as_it_was_stored(self, opener: Opener) -> None:
        """A record of each type comes back equal, with every field set."""
        async with opener() as storage:
            made = [sample(kind, number) for kind in records.ALL for number in (1, 2)]
            stored = {(type(record), record.key): record for record in made}  # some types have one key only
            await storage.commit(Commit(inserts=list(stored.values())))
            for record in stored.values():
                assert await storage.get(type(record), record.key) == record

    async def test_every_record_type_returns_with_nothing_in_it(self, opener: Opener) -> None:
        """None, empty text, empty bytes and empty collections come back as such, in every type."""
        async with opener() as storage:
            stored = [bare(kind, 1) for kind in records.ALL]
            await storage.commit(Commit(inserts=stored))
            for record in stored:
                assert await storage.get(type(record), record.key) == record

    async def test_text_of_any_kind_returns_unchanged(self, opener: Opener) -> None:
        """Empty text, NUL, quotes, every plane of Unicode unnormalised, and long text come back as they were."""
        async with opener() as storage:
            stored = [lease(number, reason=text) for number, text in enumerate(TEXTS)]
            await storage.commit(Commit(inserts=stored))
            found = await storage.get_many(LeaseRecord, [record.key for record in stored])
            assert [found[record.key].reason for record in stored] == list(TEXTS)

    async def test_text_in_structures_returns_unchanged(self, opener: Opener) -> None:
        """Labels hold any text on both sides."""
        async with opener() as storage:
            token = sample(TokenRecord, 1, labels={text: text for text in TEXTS})
            await storage.commit(Commit(inserts=[token]))
            found = await storage.get(TokenRecord, token.key)
            assert found is not None
            assert found.labels == token.labels

    async def test_bytes_of_any_kind_return_unchanged(self, opener: Opener) -> None:
        """Empty, NUL, every byte value and 64 KiB come back as they were."""
        async with opener() as storage:
            stored = [sample(VersionRecord, number, sealed=sealed) for number, sealed in enumerate(BINARIES)]
            await storage.commit(Commit(inserts=stored))
            found = await storage.get_many(VersionRecord, [record.key for record in stored])
            assert [found[record.key].sealed for record in stored] == list(BINARIES)

    async def test_integers_of_64_bits_return_exactly(self, opener: Opener) -> None:
        """Every integer from -2^63 to 2^63 - 1 is kept exactly."""
        async with opener() as storage:
            stored = [lease(number, acked_version=integer) for number, integer in enumerate(INTEGERS)]
            await storage.commit(Commit(inserts=stored))
            found = await storage.get_many(LeaseRecord, [record.key for record in stored])
            assert [found[record.key].acked_version for record in stored] == list(INTEGERS)

    async def test_what_a_column_cannot_hold_is_refused(self, opener: Opener) -> None:
        """Integers over 64 bits, lone surrogates, None or a type that may not be: OutOfBounds, nothing is stored."""
        wrong: list[dict[str, object]] = [
            {"acked_version": 2**63},
            {"acked_version": -(2**63) - 1},
            {"reason": "\ud800"},
            {"token": None},
            {"token": b"bytes"},
            {"token": object()},
            {"acked_version": "text"},
            {"ttl_s": float("nan")},
        ]
        async with opener() as storage:
            for fields in wrong:
                with pytest.raises(OutOfBounds):
                    await storage.commit(Commit(inserts=[lease(1), lease(2, **fields)]))
            assert await storage.get_many(LeaseRecord, [lease(1).key, lease(2).key]) == {}

    async def test_floats_return_exactly(self, opener: Opener) -> None:
        """Floats come back bit by bit, infinity included."""
        async with opener() as storage:
            stored = [lease(number, ttl_s=value) for number, value in enumerate(FLOATS)]
            await storage.commit(Commit(inserts=stored))
            found = await storage.get_many(LeaseRecord, [record.key for record in stored])
            assert [found[record.key].ttl_s for record in stored] == list(FLOATS)

    async def test_instants_keep_their_microseconds(self, opener: Opener) -> None:
        """Instants of years 1 to 9999 come back to the microsecond."""
        instants = [
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            datetime(1970, 1, 1, tzinfo=UTC),
            datetime(2038, 1, 19, 3, 14, 8, 1, tzinfo=UTC),
            datetime(2255, 6, 5, 23, 47, 34, 740_993, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        ]
        async with opener() as storage:
            stored = [lease(number, granted_at=instant) for number, instant in enumerate(instants)]
            await storage.commit(Commit(inserts=stored))
            found = await storage.get_many(LeaseRecord, [record.key for record in stored])
            assert [found[record.key].granted_at for record in stored] == instants

    async def test_instants_return_in_utc(self, opener: Opener) -> None:
        """An instant given in another zone is the same instant, told in UTC."""
        there = at(0).astimezone(timezone(timedelta(hours=5, minutes=30)))
        async with opener() as storage:
            await storage.commit(Commit(inserts=[lease(1, granted_at=there)]))
            found = await storage.get(LeaseRecord, lease(1).key)
            assert found is not None
            assert (found.granted_at, found.granted_at.utcoffset()) == (at(0), timedelta(0))

    async def test_an_absent_key_is_none(self, opener: Opener) -> None:
        """get answers None for a key that is not there, whatever stands beside it."""
        async with opener() as storage:
            await storage.commit(Commit(inserts=[sample(VersionRecord, 1)]))
            assert await storage.get(VersionRecord, ("token-000001", 2)) is None

    async def test_get_many_leaves_out_absent_keys(self, opener: Opener) -> None:
        """get_many answers the records that exist, once each, also for composite keys, and nothing for no keys."""
        async with opener() as storage:
            stored = [sample(VersionRecord, number) for number in range(7)]
            await storage.commit(Commit(inserts=stored))
            keys = [record.key for record in stored]
            asked = [*keys[:5], ("token-000001", 2), ("absent", 1), keys[0]]
            assert await storage.get_many(VersionRecord, asked) == {record.key: record for record in stored[:5]}
            assert await storage.get_many(VersionRecord, []) == {}

    async def test_get_many_takes_a_page_of_keys_and_no_more(self, opener: Opener) -> None:
        """PAGE_MAX keys are answered; one more is OutOfBounds."""
        async with opener() as storage:
            stored = [lease(number) for number in range(PAGE_MAX)]
            await storage.commit(Commit(inserts=stored))
            keys = [record.key for record in stored]
            assert len(await storage.get_many(LeaseRecord, keys)) == PAGE_MAX
            with pytest.raises(OutOfBounds):
                await storage.get_many(LeaseRecord, [*keys, ("one more",)])

    async def test_what_a_caller_changes_afterwards_is_not_stored(self, opener: Opener) -> None:
        """Storage keeps no hold on a caller's records: a dict changed after commit does not change what is stored."""
        labels = {"team": "a"}
        async with opener() as storage:
            token = sample(TokenRecord, 1, labels=labels)
            await storage.commit(Commit(inserts=[token]))
            labels["team"] = "b"
            found = await storage.get(TokenRecord, token.key)
            assert found is not None
            assert found.labels == {"team": "a"}

    async def test_an_update_replaces_the_whole_record(self, opener: Opener) -> None:
        """After an update every field is the new record's, those that became None or empty too."""
        changing = [kind for kind in records.ALL if kind not in records.AUDIT]
        async with opener() as storage:
            stored = [sample(kind, 1) for kind in changing]
            await storage.commit(Commit(inserts=stored))
            after = [following(bare(kind, 1)) for kind in changing]
            await storage.commit(Commit(updates=after))
            for record in after:
                assert await storage.get(type(record), record.key) == record
