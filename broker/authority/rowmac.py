"""MAC rows, so that no row can be forged, changed, or moved to another key, table or cluster.

A whole earlier row with its own MAC still passes here: that is what `manifest` is for. The format is
docs/spec/authority.md, "Row MAC"; tests/vectors/row_mac.json pins it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final

import msgspec

from broker.authority.errors import RowForged, row_name
from storage.records import (
    AUTHORITY,
    IssuedRecord,
    ManifestRecord,
    RolloutRecord,
    RotationRecord,
    TokenRecord,
    VersionRecord,
)
from storage.table import R, Record

MACED: Final[tuple[type[Record], ...]] = (
    *AUTHORITY,
    IssuedRecord,
    ManifestRecord,
    RolloutRecord,
    RotationRecord,
    TokenRecord,
    VersionRecord,
)
"""Every kind of record that carries a MAC."""
_FORMAT: Final = b"tokenbroker/row/v1"


def joined(*parts: bytes) -> bytes:
    """The parts, each behind its length as 4 bytes, big-endian: no two lists of parts give the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def mac_of(record: Record) -> bytes:
    """The MAC column of a record; empty if it holds none."""
    mac = getattr(record, "mac", b"")
    return mac if isinstance(mac, bytes) else b""


class RowShape:
    """How one kind of record is written down for its MAC.

    Fields that have a default are left out while they have it. So a release that adds such a field still verifies
    the rows of the release before, and the release before refuses rows that use what it does not know.
    """

    __slots__ = ("_kind", "_optional")

    def __init__(self, kind: type[Record]) -> None:
        self._kind = kind
        self._optional = tuple(
            (field.name, field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory())
            for field in msgspec.structs.fields(kind)
            if not field.required and field.name not in {"rev", "mac"}
        )

    def body(self, record: Record) -> bytes:
        """Canonical JSON of all fields but `mac`, members sorted by name."""
        fields = msgspec.structs.asdict(record)
        fields.pop("mac", None)
        for name, default in self._optional:
            if fields[name] == default:
                del fields[name]
        return msgspec.json.encode(fields, order="sorted")

    def expect_storable(self, record: Record) -> None:
        """Raise ValueError if storage would give this record back with another body: our bug, caught before it is kept.

        Causes: a field of another type than declared, or an instant that is not in UTC.
        """
        body = self.body(record)
        try:
            again = self.body(msgspec.json.decode(body, type=self._kind))
        except msgspec.ValidationError as error:
            raise ValueError(f"{row_name(record.table.name, record.key)}: {error}") from error
        if again != body or any(at.utcoffset() != timedelta(0) for at in _instants(record)):
            raise ValueError(f"{row_name(record.table.name, record.key)}: types as declared, instants in UTC")


class RowMac:
    """Sign and verify rows with keys that come from the root key, one for each table.

    derive: 32 bytes for each label, out of the cluster's root key. It is called only here in the constructor.
    """

    __slots__ = ("_heads", "_keys", "_shapes")

    def __init__(self, derive: Callable[[str], bytes], cluster_id: str) -> None:
        self._heads = {kind: joined(_FORMAT, cluster_id.encode(), kind.table.name.encode()) for kind in MACED}
        self._keys = {kind: derive(f"row-mac/{kind.table.name}") for kind in MACED}
        self._shapes = {kind: RowShape(kind) for kind in MACED}

    def sign(self, record: R) -> R:
        """The record with its MAC. ValueError: see `RowShape.expect_storable`. KeyError: the kind carries no MAC."""
        self._shapes[type(record)].expect_storable(record)
        return msgspec.structs.replace(record, mac=self._mac(record))

    def verify(self, record: Record) -> None:
        """Return only if the record's MAC is this cluster's for this very row.

        RowForged: the MAC is missing or wrong, because the row was written by somebody else, changed, moved from
        another key, table or cluster, or written by a release that knows more fields.
        """
        stored = mac_of(record)
        try:
            right = hmac.compare_digest(self._mac(record), stored)
        except (TypeError, ValueError):  # a value that has no JSON at all: no release of ours ever stored one
            right = False
        if not right:
            raise RowForged(
                f"{row_name(record.table.name, record.key)} {'does not fit its' if stored else 'has no'} MAC: this "
                "cluster did not write it as it stands; compare it with a backup and the audit log",
                table=record.table.name,
                key=record.key,
            )

    def _mac(self, record: Record) -> bytes:
        kind = type(record)
        return hmac.digest(self._keys[kind], self._heads[kind] + joined(self._shapes[kind].body(record)), "sha256")


def _instants(value: object) -> Iterator[datetime]:
    """Every instant in a record, nested ones too."""
    if isinstance(value, datetime):
        yield value
    elif isinstance(value, msgspec.Struct):
        for inner in msgspec.structs.asdict(value).values():
            yield from _instants(inner)
    elif isinstance(value, tuple):
        for inner in value:
            yield from _instants(inner)
