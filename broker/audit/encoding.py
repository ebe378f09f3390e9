"""Entries as bytes: canonical JSON, 1 to 65 535 bytes, the leaves of the tree (docs/spec/audit.md, "Entries")."""

from __future__ import annotations

import math
from datetime import UTC, timedelta
from typing import get_args

import msgspec

from broker.audit.entries import AnyEntry, Entry
from broker.audit.errors import EntryBroken
from broker.errors import BadRequest

ENTRY_BYTES_MAX = 65_535
"""What the two-byte length of a C2SP tlog-tiles entry bundle can say."""
MESSAGE_CHARS_MAX = 120
"""How much of the decoder's message is passed on: it may quote what somebody planted."""

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(AnyEntry)
_UTC = timedelta(0)
_FLOATS = {
    kind: names
    for kind in get_args(AnyEntry)
    if (names := tuple(field.name for field in msgspec.structs.fields(kind) if field.type is float))
}


def encode(entry: Entry) -> bytes:
    """The canonical bytes of `entry`.

    BadRequest: longer than `ENTRY_BYTES_MAX` (name fewer leases in one entry), `at` is not in UTC, a number is not
    finite, or a text is not Unicode (a surrogate by itself).
    """
    if entry.at.tzinfo is not UTC and entry.at.utcoffset() != _UTC:
        raise BadRequest("an audit entry carries an aware instant in UTC")
    for name in _FLOATS.get(type(entry), ()):
        value = getattr(entry, name)
        if type(value) is not float or not math.isfinite(value):
            entry = _with_float(entry, name, value)
    try:
        raw = _ENCODER.encode(entry)
    except UnicodeEncodeError:
        raise BadRequest("an audit entry holds Unicode text only") from None
    if len(raw) > ENTRY_BYTES_MAX:
        event = type(entry).__struct_config__.tag
        raise BadRequest(f"audit entry {event} has {len(raw)} bytes, the limit is {ENTRY_BYTES_MAX}; split it")
    return raw


def _with_float(entry: Entry, name: str, value: float) -> Entry:
    """`entry` with a float where the fact is one: 300 and 300.0 are equal in Python and differ in JSON."""
    if not math.isfinite(value):
        raise BadRequest(f"the audit entry's {name} is not a finite number")
    return msgspec.structs.replace(entry, **{name: float(value)})


def decode(raw: bytes) -> Entry:
    """The fact that `raw` canonically encodes.

    EntryBroken: not JSON, an unknown event, a field missing, unknown or of the wrong type, an instant that is not
    UTC, or an encoding other than the one `encode` writes.
    """
    try:
        entry = _DECODER.decode(raw)
    except msgspec.MsgspecError as error:
        raise EntryBroken(f"not an entry of a known event: {str(error)[:MESSAGE_CHARS_MAX]}") from None
    except UnicodeDecodeError:
        raise EntryBroken("not UTF-8") from None
    if _ENCODER.encode(entry) != raw:
        raise EntryBroken("not in canonical form: unknown fields, another order, or spare characters")
    if entry.at.utcoffset() != _UTC:
        raise EntryBroken("its instant is not in UTC")
    return entry
