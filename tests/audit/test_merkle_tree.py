"""The tree against the published vectors, and against the definition in RFC 6962 written down naively."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.errors import ProofBroken
from broker.audit.tree import (
    EMPTY_ROOT,
    Frontier,
    PathTracer,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "merkle.json").read_text())
LEAVES = [leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]
ROOTS = [bytes.fromhex(root) for root in VECTORS["roots"]]


def naive_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + naive_root(leaves[:split]) + naive_root(leaves[split:])).digest()


def hashes(count: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(count)]


def test_published_roots() -> None:
    """Every prefix of the reference leaves has its published root."""
    assert [root_of(LEAVES[:size]) for size in range(1, 9)] == ROOTS
    assert Frontier().root() == EMPTY_ROOT == bytes.fromhex(VECTORS["empty_root"])


@pytest.mark.parametrize("vector", VECTORS["inclusion"])
def test_published_inclusion_proofs(vector: dict[str, Any]) -> None:
    """The published inclusion proofs are the ones made, and they verify."""
    index, size = vector["index"], vector["size"]
    path = inclusion_proof(LEAVES[:size], index)
    assert [step.hex() for step in path] == vector["path"]
    verify_inclusion(leaf=LEAVES[index], index=index, size=size, path=path, root=ROOTS[size - 1])


@pytest.mark.parametrize("vector", VECTORS["consistency"])
def test_published_consistency_proofs(vector: dict[str, Any]) -> None:
    """The published consistency proofs are the ones made, and they verify."""
    first, second = vector["first"], vector["second"]
    path = consistency_proof(LEAVES[:second], first)
    assert [step.hex() for step in path] == vector["path"]
    verify_consistency(
        first=first, first_root=ROOTS[first - 1], second=second, second_root=ROOTS[second - 1], path=path
    )


@given(st.lists(st.integers(0, 40), max_size=8))
def test_frontier_is_the_definition(steps: list[int]) -> None:
    """However leaves arrive, the frontier's root is the one of the definition."""
    frontier, leaves = Frontier(), hashes(sum(steps))
    for step in steps:
        frontier.extend(leaves[frontier.size : frontier.size + step])
        assert frontier.root() == naive_root(leaves[: frontier.size])
    assert frontier.size == len(leaves)


@given(st.integers(1, 150), st.data())
def test_every_leaf_has_a_proof(size: int, data: st.DataObject) -> None:
    """For each leaf of each tree, the traced path leads to the root."""
    index = data.draw(st.integers(0, size - 1))
    leaves = hashes(size)
    path = inclusion_proof(leaves, index)
    assert len(path) <= size.bit_length()
    verify_inclusion(leaf=leaves[index], index=index, size=size, path=path, root=naive_root(leaves))


@given(st.integers(1, 150), st.data())
def test_every_prefix_has_a_proof(size: int, data: st.DataObject) -> None:
    """For each prefix of each tree, the consistency proof leads to both roots."""
    first = data.draw(st.integers(1, size))
    leaves = hashes(size)
    verify_consistency(
        first=first,
        first_root=naive_root(leaves[:first]),
        second=size,
        second_root=naive_root(leaves),
        path=consistency_proof(leaves, first),
    )


@given(st.integers(2, 60), st.data())
def test_altered_inclusion_proof_is_refused(size: int, data: st.DataObject) -> None:
    """Another leaf, another place, another size, another root, or a changed, longer or shorter path proves nothing."""
    index = data.draw(st.integers(0, size - 1))
    leaves = hashes(size)
    path = inclusion_proof(leaves, index)
    good: dict[str, Any] = {"leaf": leaves[index], "index": index, "size": size, "path": path, "root": root_of(leaves)}
    spot = data.draw(st.integers(0, len(path) - 1))
    other = leaf_hash(b"other")
    for bad in (
        {"leaf": other},
        {"root": other},
        {"index": (index + 1) % size},
        {"index": index + size},
        {"index": -1},
        {"size": size * 4},
        {"path": [*path, other]},
        {"path": path[:-1]},
        {"path": [*path[:spot], other, *path[spot + 1 :]]},
    ):
        with pytest.raises(ProofBroken):
            verify_inclusion(**{**good, **bad})


@given(st.integers(2, 60), st.data())
def test_altered_consistency_proof_is_refused(size: int, data: st.DataObject) -> None:
    """A tree that is no prefix, or a changed, longer or shorter path proves nothing."""
    first = data.draw(st.integers(1, size - 1))
    leaves = hashes(size)
    path = consistency_proof(leaves, first)
    good: dict[str, Any] = {
        "first": first,
        "first_root": root_of(leaves[:first]),
        "second": size,
        "second_root": root_of(leaves),
        "path": path,
    }
    other = leaf_hash(b"other")
    spot = data.draw(st.integers(0, len(path) - 1))
    changes: list[dict[str, Any]] = [
        {"first_root": other},
        {"second_root": other},
        {"first": size + 1},
        {"first": 0},
        {"second": size * 4},
        {"path": [*path, other]},
        {"path": path[:-1]},
        {"path": []},
        {"path": [*path[:spot], other, *path[spot + 1 :]]},
    ]
    for bad in changes:
        with pytest.raises(ProofBroken):
            verify_consistency(**{**good, **bad})


def test_equal_sizes_need_equal_roots() -> None:
    """Two trees of one size are consistent only when they are the same, and without any path."""
    root = ROOTS[4]
    verify_consistency(first=5, first_root=root, second=5, second_root=root, path=[])
    for second_root, path in ((ROOTS[3], []), (root, [root])):
        with pytest.raises(ProofBroken):
            verify_consistency(first=5, first_root=root, second=5, second_root=second_root, path=path)


def test_leaf_outside_the_tree_has_no_proof() -> None:
    """A proof for a leaf that is not there is refused when it is made."""
    tracer = PathTracer(3)
    tracer.extend(LEAVES[:3])
    with pytest.raises(ProofBroken):
        tracer.path()
    for first in (0, 4):
        with pytest.raises(ProofBroken):
            consistency_proof(LEAVES[:3], first)
