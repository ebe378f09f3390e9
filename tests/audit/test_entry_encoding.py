"""Entries as bytes: pinned for every event, canonical, bounded."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from broker.audit.encoding import ENTRY_BYTES_MAX, decode, encode
from broker.audit.entries import AnyEntry, LeasesRenewed, LogClosed
from broker.audit.errors import EntryBroken
from broker.errors import BadRequest

VECTORS: dict[str, str] = json.loads((Path(__file__).parents[1] / "vectors" / "audit_entries.json").read_text())
CLOSED = VECTORS["log.closed"]
AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_every_event_is_pinned() -> None:
    """Each event has a vector, so its encoding cannot change unnoticed: old logs would no longer verify."""
    assert sorted(VECTORS) == sorted(kind.__struct_config__.tag for kind in get_args(AnyEntry))


@pytest.mark.parametrize("event", sorted(VECTORS))
def test_pinned_encodings(event: str) -> None:
    """A pinned entry decodes, and encodes to the same bytes."""
    assert encode(decode(VECTORS[event].encode())).decode() == VECTORS[event]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "\xff",
        '{"event":"log.unheard","at":"2026-01-01T00:00:00Z","actor":"system"}',
        '{"at":"2026-01-01T00:00:00Z","actor":"system","instance":"x"}',
        CLOSED.replace('"instance":"x"', '"instance":7'),
        CLOSED.replace('"instance":"x"', '"instance":"x","value":"hunter2"'),
        CLOSED.replace(",", ", "),
        CLOSED.replace("05.600000Z", "05.6Z"),
        CLOSED.replace("05.600000Z", "05.600000+00:00"),
        CLOSED.replace("05.600000Z", "05.600000+02:00"),
        CLOSED.replace("05.600000Z", "05.600000"),
        CLOSED.replace('"x"', '"\\u0078"'),
        CLOSED + "\n",
        VECTORS["session.refused"].replace('"count":3', '"count":1'),
    ],
)
def test_anything_else_is_no_entry(text: str) -> None:
    """Unknown events and fields, and any second spelling of a known fact, are refused."""
    with pytest.raises(EntryBroken):
        decode(text.encode("latin-1"))


def test_refusal_does_not_repeat_the_content() -> None:
    """What somebody planted in an entry does not reach the message, but for the beginning of an unknown event."""
    with pytest.raises(EntryBroken) as caught:
        decode(CLOSED.replace("log.closed", "x" * 60_000).encode())
    assert len(str(caught.value)) < 200
    with pytest.raises(EntryBroken) as caught:
        decode(CLOSED.replace('"instance":"x"', '"instance":"x","value":"hunter2"').encode())
    assert "hunter2" not in str(caught.value)


def test_entry_over_the_bound_is_refused() -> None:
    """An entry that the two-byte length cannot hold is refused, with its size, the limit and the remedy."""
    entry = LeasesRenewed(at=AT, actor="system", session="s", leases=("l" * 26,) * 3000)
    with pytest.raises(BadRequest, match=rf"lease.renewed has \d+ bytes, the limit is {ENTRY_BYTES_MAX}; split it"):
        encode(entry)


@pytest.mark.parametrize("at", [AT.replace(tzinfo=None), AT.astimezone(timezone(timedelta(hours=2)))])
def test_instants_are_utc(at: datetime) -> None:
    """An entry with a naive or local instant is never written."""
    with pytest.raises(BadRequest, match="UTC"):
        encode(LogClosed(at=at, actor="system", instance="x"))


def test_a_whole_number_of_seconds_is_canonical() -> None:
    """A TTL given as an integer is written as the float that the fact is, so that the entry verifies later."""
    granted = decode(VECTORS["lease.granted"].encode())
    raw = encode(msgspec.structs.replace(granted, ttl_s=300))
    assert raw.endswith(b'"ttl_s":300.0}')
    assert encode(decode(raw)) == raw


@pytest.mark.parametrize("change", [{"ttl_s": float("inf")}, {"ttl_s": float("nan")}, {"token": "\udc80"}])
def test_what_json_cannot_say_is_refused(change: dict[str, object]) -> None:
    """A value that would not decode again is never written."""
    granted = decode(VECTORS["lease.granted"].encode())
    with pytest.raises(BadRequest):
        encode(msgspec.structs.replace(granted, **change))
