"""Pin a whole table: an incremental, keyed digest of the set of its rows. Pure; reads and writes nothing.

The sum of the rows' terms is secret and stays in memory; a manifest row shows only a PRF of it. Were the sums stored,
whoever reads them could solve for another set of old rows with the same sum (docs/decisions/0006-authority.md).
The format is docs/spec/authority.md, "Manifest"; tests/vectors/manifest.json pins it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from broker.authority.rowmac import RowMac, joined
from storage.records import AUTHORITY, ManifestRecord

_FORMAT: Final = b"tokenbroker/manifest/v1"
_MODULUS: Final = 1 << 256


@dataclass(frozen=True, slots=True)
class Tally:
    """A set of rows: how many, and the sum of their terms, which is secret and must never be stored or shown."""

    count: int = 0
    total: int = field(default=0, repr=False)


class SetDigest:
    """Turn the rows of one table into a tally, and a tally into the digest that its manifest stores.

    A row counts by its MAC, which the caller has verified or made: it stands for the table, the key and every field.
    """

    __slots__ = ("_cluster", "_digest_key", "_table", "_term_key")

    def __init__(self, derive: Callable[[str], bytes], cluster_id: str, table: str) -> None:
        self._cluster = cluster_id.encode()
        self._table = table.encode()
        self._term_key = derive(f"manifest-term/{table}")
        self._digest_key = derive(f"manifest-digest/{table}")

    def add(self, tally: Tally, mac: bytes) -> Tally:
        """The tally with one more row."""
        return Tally(tally.count + 1, (tally.total + self._term(mac)) % _MODULUS)

    def remove(self, tally: Tally, mac: bytes) -> Tally:
        """The tally with one row less; the row must be in it."""
        return Tally(tally.count - 1, (tally.total - self._term(mac)) % _MODULUS)

    def digest(self, tally: Tally) -> bytes:
        """32 bytes that tell whoever lacks the keys nothing but whether two tallies are equal."""
        return hmac.digest(
            self._digest_key,
            joined(
                _FORMAT, self._cluster, self._table, tally.count.to_bytes(8, "big"), tally.total.to_bytes(32, "big")
            ),
            "sha256",
        )

    def _term(self, mac: bytes) -> int:
        return int.from_bytes(hmac.digest(self._term_key, mac, "sha256"), "big")


def initial_manifests(derive: Callable[[str], bytes], cluster_id: str) -> tuple[ManifestRecord, ...]:
    """The signed manifests of empty tables, which `init` inserts once, together with the root."""
    mac = RowMac(derive, cluster_id)
    return tuple(
        mac.sign(
            ManifestRecord(
                kind=kind.table.name,
                count=0,
                digest=SetDigest(derive, cluster_id, kind.table.name).digest(Tally()),
            )
        )
        for kind in AUTHORITY
    )
