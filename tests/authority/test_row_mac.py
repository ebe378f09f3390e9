"""The row MAC: its pinned format, and that it stands for every field of one row of one table of one cluster."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.authority.errors import RowForged
from broker.authority.rowmac import MACED, RowMac, RowShape, joined
from storage import records
from storage.records import EnrolmentRecord, ManifestRecord, TokenRecord, VersionRecord
from storage.table import Record, Table

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "row_mac.json").read_text())
KINDS = {kind.table.name: kind for kind in MACED}


def stand_in(label: str) -> bytes:
    """The derivation that the vectors use in place of a root key."""
    return hashlib.sha256(label.encode()).digest()


@pytest.fixture
def mac() -> RowMac:
    return RowMac(stand_in, "cluster-one")


@pytest.mark.parametrize("vector", VECTORS["rows"], ids=lambda vector: vector["name"])
def test_the_format_is_pinned(vector: dict[str, Any]) -> None:
    """The MAC of each published row never changes, and its input is what the specification says."""
    kind = KINDS[vector["table"]]
    record = msgspec.convert(vector["record"], kind)
    body = RowShape(kind).body(record)
    assert body.decode() == vector["body"]
    parts = (b"tokenbroker/row/v1", VECTORS["cluster_id"].encode(), vector["table"].encode(), body)
    assert joined(*parts).hex() == vector["input"]
    assert hmac.digest(stand_in(f"row-mac/{vector['table']}"), joined(*parts), "sha256").hex() == vector["mac"]
    assert RowMac(stand_in, VECTORS["cluster_id"]).sign(record).mac.hex() == vector["mac"]


def test_every_kind_that_has_a_mac_column_is_signed() -> None:
    """No record type carries a MAC column that nobody fills."""
    assert set(MACED) == {kind for kind in records.ALL if "mac" in kind.__struct_fields__}


def test_a_signed_row_verifies(mac: RowMac, worker: Any) -> None:
    """What was signed is accepted."""
    mac.verify(mac.sign(worker("ann")))


def test_a_row_without_a_mac_is_refused(mac: RowMac, worker: Any) -> None:
    """A missing MAC is an invalid MAC."""
    with pytest.raises(RowForged, match="'ann' of table worker has no MAC") as refused:
        mac.verify(worker("ann"))
    assert (refused.value.table, refused.value.key) == ("worker", ("ann",))


CHANGES: dict[str, Any] = {
    "rev": 2,
    "name": "eve",
    "groups": ("ci", "ops"),
    "auth": "mtls",
    "keys": (),
    "labels": {"team": "core"},
    "single_session": True,
    "disabled": True,
    "created_at": None,
    "expires_at": 0,
}


def test_every_field_of_a_worker_is_covered(mac: RowMac, worker: Any) -> None:
    """Changing any field but the MAC itself breaks the MAC."""
    signed = mac.sign(worker("ann"))
    assert CHANGES.keys() | {"mac"} == set(signed.__struct_fields__)
    for name, value in CHANGES.items():
        with pytest.raises(RowForged):
            mac.verify(msgspec.structs.replace(signed, **{name: value}))


def test_a_mac_belongs_to_one_cluster(mac: RowMac, worker: Any) -> None:
    """The same keys under another cluster id refuse the row."""
    with pytest.raises(RowForged):
        RowMac(stand_in, "cluster-two").verify(mac.sign(worker("ann")))


def test_a_mac_belongs_to_one_table() -> None:
    """Rows with the same fields in two tables have different MACs, even under one key."""
    fields = {"kind": "x", "count": 0, "digest": b""}
    same_key = RowMac(lambda _: b"k" * 32, "c")
    manifest = same_key.sign(ManifestRecord(**fields))
    body = RowShape(ManifestRecord).body(manifest)
    assert joined(b"tokenbroker/row/v1", b"c", b"manifest", body) != joined(b"tokenbroker/row/v1", b"c", b"token", body)


def test_each_table_has_its_own_key() -> None:
    """Every table asks the root key for a label of its own."""
    asked: list[str] = []

    def derive(label: str) -> bytes:
        asked.append(label)
        return stand_in(label)

    RowMac(derive, "c")
    assert sorted(asked) == sorted(f"row-mac/{kind.table.name}" for kind in MACED)


class Older(Record, frozen=True, kw_only=True):
    """A record type of one release."""

    table: ClassVar[Table] = Table(name="thing", key=("id",))

    id: str
    mac: bytes = b""


class Newer(Record, frozen=True, kw_only=True):
    """The same table in the next release."""

    table: ClassVar[Table] = Table(name="thing", key=("id",))

    id: str
    condition: str = ""
    seen: tuple[str, ...] = ()
    mac: bytes = b""


def test_a_field_added_with_a_default_changes_no_stored_mac() -> None:
    """A release that adds a field verifies the rows of the release before it, and the older one refuses its use."""
    old = RowShape(Older).body(Older(id="a", rev=1))
    assert RowShape(Newer).body(Newer(id="a", rev=1)) == old
    assert RowShape(Newer).body(Newer(id="a", rev=1, condition="tuesdays")) != old
    assert RowShape(Newer).body(Newer(id="a", rev=1, seen=("x",))) != old


def test_the_revision_is_always_written() -> None:
    """The first revision counts like any other, although it is the field's default."""
    assert RowShape(Older).body(Older(id="a")) == b'{"id":"a","rev":1}'


@pytest.mark.parametrize(
    "changes",
    [{"name": 7}, {"disabled": "no"}, {"groups": [["x"]]}, {"rev": 1.0}, {"labels": {"a": 1}}],
    ids=str,
)
def test_a_row_of_wrong_types_is_not_signed(mac: RowMac, worker: Any, changes: dict[str, Any]) -> None:
    """A row that storage would give back otherwise, or not at all, is refused before it is kept."""
    with pytest.raises(ValueError, match="table worker"):
        mac.sign(msgspec.structs.replace(worker("ann"), **changes))


@pytest.mark.parametrize("place", ["field", "nested"])
def test_an_instant_outside_utc_is_not_signed(mac: RowMac, worker: Any, place: str) -> None:
    """An instant in another zone, which storage gives back in UTC, is refused before it is kept."""
    record = worker("ann")
    local = record.created_at.astimezone(timezone(timedelta(hours=2)))
    if place == "field":
        wrong = msgspec.structs.replace(record, created_at=local)
    else:
        key = msgspec.structs.replace(record.keys[0], added_at=local)
        wrong = msgspec.structs.replace(record, keys=(key,))
    with pytest.raises(ValueError, match="instants in UTC"):
        mac.sign(wrong)


@given(st.lists(st.binary(max_size=6), max_size=4), st.lists(st.binary(max_size=6), max_size=4))
def test_joining_is_injective(one: list[bytes], other: list[bytes]) -> None:
    """Two lists of parts give the same bytes only if they are equal."""
    assert (joined(*one) == joined(*other)) == (one == other)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=6), st.randoms())
def test_the_order_of_labels_does_not_matter(labels: dict[str, str], random: Any) -> None:
    """A mapping gives one body, however it was filled, with its keys in the order of their code points."""
    shuffled = list(labels.items())
    random.shuffle(shuffled)
    shape = RowShape(TokenRecord)
    fields = {"name": "t", "keyring": "k", "disabled": False, "current": 0, "latest": 0, "previous_valid_s": 0}
    bodies = {
        shape.body(TokenRecord(**fields, labels=dict(items), created_at=None, updated_at=None))
        for items in (labels.items(), shuffled)
    }
    assert len(bodies) == 1
    written = json.loads(bodies.pop(), object_pairs_hook=list)
    assert [name for name, _ in dict(written)["labels"]] == sorted(labels)


def test_versions_and_enrolments_are_covered_with_their_bytes(mac: RowMac, worker: Any) -> None:
    """Bytes take part in the MAC: one other byte of a sealed value, or of a code's hash, is refused."""
    at = worker("x").created_at
    version = VersionRecord(
        token="t", version=1, stage="current", content_type="text/plain", keyring="k", data_key="d", fmt=1,
        sealed=b"sealed", created_at=at, created_by="root",
    )  # fmt: skip
    enrolment = EnrolmentRecord(
        id="e", secret_sha256=b"\0" * 32, worker="ann", groups=(), created_by="root", created_at=at, expires_at=at,
        used_at=None,
    )  # fmt: skip
    for record, changes in ((version, {"sealed": b"sealee"}), (enrolment, {"secret_sha256": b"\1" + b"\0" * 31})):
        signed = mac.sign(record)
        mac.verify(signed)
        with pytest.raises(RowForged):
            mac.verify(msgspec.structs.replace(signed, **changes))
