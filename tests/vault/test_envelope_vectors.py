"""The formats of docs/spec/envelope.md are frozen: what these vectors hold opens for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.vault.data_keys import data_key_commitment, kms_context
from broker.vault.encoding import encode
from broker.vault.envelope import open_value, value_context
from broker.vault.root import Root

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "envelope.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("vector", VECTORS["values"], ids=lambda vector: vector["name"])
def test_a_pinned_value_opens(vector: dict[str, Any]) -> None:
    """Context and value of each pinned row are what they were."""
    context = value_context(
        cluster_id=vector["cluster_id"],
        keyring=vector["keyring"],
        token=vector["token"],
        version=vector["version"],
        data_key=vector["data_key_id"],
        fmt=vector["fmt"],
    )
    assert context.hex() == vector["context"]
    opened = open_value(
        fmt=vector["fmt"],
        key=bytes.fromhex(vector["data_key"]),
        context=context,
        sealed=bytes.fromhex(vector["sealed"]),
    )
    assert opened.hex() == vector["value"]


@pytest.mark.parametrize("vector", VECTORS["encode"], ids=lambda vector: vector["encoded"])
def test_a_pinned_encoding_holds(vector: dict[str, Any]) -> None:
    """encode() gives the pinned bytes."""
    assert encode(*vector["parts"]).hex() == vector["encoded"]


def test_the_pinned_root_has_its_cluster_id() -> None:
    """A cluster's name follows from its root key, and does not change with the broker's version."""
    assert Root(bytes.fromhex(VECTORS["root"]["key"])).cluster_id == VECTORS["root"]["cluster_id"]


@pytest.mark.parametrize("label", sorted(VECTORS["root"]["derived"]))
def test_the_pinned_root_derives_its_keys(label: str) -> None:
    """Row MACs and the audit log's key can be checked after any upgrade."""
    root = Root(bytes.fromhex(VECTORS["root"]["key"]))
    assert root.derive(label).hex() == VECTORS["root"]["derived"][label]


def test_the_pinned_root_has_its_kms_context() -> None:
    """What the KMS was shown when the root key was wrapped is what it is shown now."""
    context = kms_context(cluster_id=VECTORS["root"]["cluster_id"], keyring="", data_key="root", purpose="root")
    assert context == VECTORS["root"]["kms_context"]


@pytest.mark.parametrize("vector", VECTORS["data_keys"], ids=lambda vector: vector["id"])
def test_a_pinned_data_key_keeps_commitment_and_context(vector: dict[str, Any]) -> None:
    """Wraps made by any earlier broker still open, and commit to the same key."""
    where = {"cluster_id": vector["cluster_id"], "keyring": vector["keyring"], "data_key": vector["id"]}
    assert data_key_commitment(bytes.fromhex(vector["key"]), **where).hex() == vector["commitment"]
    assert kms_context(**where, purpose="value") == vector["kms_context"]
