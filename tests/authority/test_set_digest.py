"""The digest of a set of rows: its pinned format, and that it follows the set exactly, in any order of changes."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from broker.authority.manifest import SetDigest, Tally, initial_manifests
from broker.authority.rowmac import RowMac
from storage.records import AUTHORITY

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "manifest.json").read_text())


def stand_in(label: str) -> bytes:
    """The derivation that the vectors use in place of a root key."""
    return hashlib.sha256(label.encode()).digest()


def digest_of(macs: list[bytes]) -> bytes:
    """The digest of these rows, from nothing."""
    digest, tally = SetDigest(stand_in, "c", "worker"), Tally()
    for mac in macs:
        tally = digest.add(tally, mac)
    return digest.digest(tally)


@pytest.mark.parametrize("vector", VECTORS["sets"], ids=lambda vector: vector["name"])
def test_the_format_is_pinned(vector: dict[str, Any]) -> None:
    """The digest of each published set never changes."""
    digest, tally = SetDigest(stand_in, VECTORS["cluster_id"], str(vector["table"])), Tally()
    for mac in vector["macs"]:
        tally = digest.add(tally, bytes.fromhex(mac))
    key = stand_in(f"manifest-term/{vector['table']}")
    terms = [hmac.digest(key, bytes.fromhex(mac), "sha256") for mac in vector["macs"]]
    assert f"{sum(int.from_bytes(term, 'big') for term in terms) % 2**256:064x}" == vector["total"]
    assert f"{tally.total:064x}" == vector["total"]
    assert digest.digest(tally).hex() == vector["digest"]


class DigestModel(RuleBasedStateMachine):
    """Rows come and go, twice even; the incremental digest always equals the one made from nothing."""

    present = Bundle("present")

    def __init__(self) -> None:
        super().__init__()
        self.digest = SetDigest(stand_in, "c", "worker")
        self.tally = Tally()
        self.model: Counter[bytes] = Counter()

    @rule(target=present, mac=st.binary(min_size=32, max_size=32))
    def add(self, mac: bytes) -> bytes:
        self.tally = self.digest.add(self.tally, mac)
        self.model[mac] += 1
        return mac

    @rule(mac=consumes(present))
    def remove(self, mac: bytes) -> None:
        self.tally = self.digest.remove(self.tally, mac)
        self.model[mac] -= 1

    @invariant()
    def equals_the_set(self) -> None:
        assert self.tally.count == self.model.total()
        assert self.digest.digest(self.tally) == digest_of(sorted(self.model.elements(), reverse=True))


TestDigestModel = DigestModel.TestCase


@given(st.lists(st.binary(min_size=1, max_size=2), max_size=5), st.lists(st.binary(min_size=1, max_size=2), max_size=5))
def test_digests_are_equal_only_for_equal_multisets(one: list[bytes], other: list[bytes]) -> None:
    """Order is nothing; a row less, more, twice or exchanged is another digest."""
    assert (digest_of(one) == digest_of(other)) == (Counter(one) == Counter(other))


def test_a_pair_of_equal_rows_does_not_vanish() -> None:
    """A row that is there twice is not as if it were not there (which an XOR of terms would say)."""
    assert len({digest_of([]), digest_of([b"a"]), digest_of([b"a", b"a"]), digest_of([b"a"] * 3)}) == 4


def test_digests_belong_to_one_table_and_cluster() -> None:
    """The same rows have another digest in another table, or in another cluster."""
    tally = Tally(1, 5)
    places = [("c", "worker"), ("c", "grant_"), ("d", "worker")]
    assert len({SetDigest(stand_in, cluster, table).digest(tally) for cluster, table in places}) == 3
    same_keys = [SetDigest(lambda _: b"k" * 32, cluster, table).digest(tally) for cluster, table in places]
    assert len(set(same_keys)) == 3


def test_the_secret_sum_is_not_shown() -> None:
    """The sum appears neither in the digest nor in what a tally prints."""
    digest = SetDigest(stand_in, "c", "worker")
    tally = digest.add(Tally(), b"m" * 32)
    assert digest.digest(tally) != tally.total.to_bytes(32, "big")
    assert str(tally.total) not in repr(tally)


def test_init_makes_a_signed_manifest_for_every_authority_table() -> None:
    """Every authority table begins with a manifest of no rows, so that a missing one always means tampering."""
    manifests = initial_manifests(stand_in, "c")
    assert [manifest.kind for manifest in manifests] == [kind.table.name for kind in AUTHORITY]
    mac = RowMac(stand_in, "c")
    for manifest in manifests:
        mac.verify(manifest)
        assert (manifest.rev, manifest.count) == (1, 0)
