"""Entries as bytes: canonical JSON, 1 to 65 535 bytes, the leaves of the tree (docs/spec/audit.md, "Entries")."""

from __future__ import annotations

from datetime import timedelta

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


def encode(entry: Entry) -> bytes:
    """The canonical bytes of `entry`.

    BadRequest: longer than `ENTRY_BYTES_MAX` (name fewer leases in one entry), or `at` is not in UTC.
    """
    if entry.at.utcoffset() != _UTC:
        raise BadRequest("an audit entry carries an aware instant in UTC")
    raw = _ENCODER.encode(entry)
    if len(raw) > ENTRY_BYTES_MAX:
        event = type(entry).__struct_config__.tag
        raise BadRequest(f"audit entry {event} has {len(raw)} bytes, the limit is {ENTRY_BYTES_MAX}; split it")
    return raw


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
