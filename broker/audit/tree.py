"""The Merkle tree of RFC 6962 section 2.1 over SHA-256: append, root, proofs and their verification. No I/O.

An append keeps only the frontier (at most 64 hashes), so a log may grow without memory. Verification raises; it
never answers with a bool. Signatures over roots are `broker.audit.note`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from broker.audit.errors import ProofBroken

EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one leaf: SHA-256(0x00 ‖ entry)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees: SHA-256(0x01 ‖ left ‖ right)."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A growing tree: the roots of its complete subtrees, largest first."""

    __slots__ = ("_roots", "size")

    def __init__(self) -> None:
        self._roots: list[bytes] = []
        self.size = 0

    @classmethod
    def of(cls, size: int, roots: Sequence[bytes]) -> Frontier:
        """The tree that had these `roots` at this size. Nothing proves them but the root that it grows to.

        ProofBroken: a tree of that size has another number of complete subtrees, or a root is not 32 bytes.
        """
        if size < 0 or len(roots) != size.bit_count() or any(len(root) != 32 for root in roots):
            raise ProofBroken(f"these are not the complete subtrees of a tree of {size} entries")
        frontier = cls()
        frontier._roots = list(roots)
        frontier.size = size
        return frontier

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The roots of the complete subtrees, largest first: as many as `size` has binary ones."""
        return tuple(self._roots)

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Append leaf hashes in order."""
        roots, size, hashed = self._roots, self.size, sha256
        for leaf in leaves:
            node, bits = leaf, size
            while bits & 1:
                node = hashed(b"\x01" + roots.pop() + node).digest()
                bits >>= 1
            roots.append(node)
            size += 1
        self.size = size

    def root(self) -> bytes:
        """The tree head over all leaves so far; of an empty tree, SHA-256 of nothing."""
        if not self._roots:
            return EMPTY_ROOT
        node = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            node = node_hash(left, node)
        return node


class PathTracer:
    """Follows one leaf through a growing tree and keeps its inclusion proof, in memory that grows as its logarithm."""

    __slots__ = ("_index", "_path", "_stack", "size")

    def __init__(self, index: int) -> None:
        self._index = index
        self._path: list[bytes] = []
        self._stack: list[tuple[int, int, bytes]] = []  # first leaf, number of leaves, hash
        self.size = 0

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Append leaf hashes in order."""
        for leaf in leaves:
            start, count, node = self.size, 1, leaf
            while self._stack and self._stack[-1][1] == count:
                left_start, left_count, left = self._stack.pop()
                self._meet(self._path, (left_start, start, start + count), left, node)
                start, count, node = left_start, left_count + count, node_hash(left, node)
            self._stack.append((start, count, node))
            self.size += 1

    def path(self) -> list[bytes]:
        """The proof within the tree as it is, from the leaf's sibling up to the root's child.

        ProofBroken: the tree has not grown to hold the leaf.
        """
        if not 0 <= self._index < self.size:
            raise ProofBroken(f"entry {self._index} is not among the {self.size} entries of the tree")
        path = list(self._path)
        start, _, node = self._stack[-1]
        for left_start, _, left in reversed(self._stack[:-1]):
            self._meet(path, (left_start, start, self.size), left, node)
            start, node = left_start, node_hash(left, node)
        return path

    def _meet(self, path: list[bytes], bounds: tuple[int, int, int], left: bytes, right: bytes) -> None:
        start, middle, end = bounds
        if start <= self._index < middle:
            path.append(right)
        elif middle <= self._index < end:
            path.append(left)


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The tree head over these leaf hashes."""
    frontier = Frontier()
    frontier.extend(leaves)
    return frontier.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """RFC 6962 section 2.1.1: the proof that leaf `index` is in the tree over `leaves`. ProofBroken: it is not."""
    tracer = PathTracer(index)
    tracer.extend(leaves)
    return tracer.path()


def consistency_proof(leaves: Sequence[bytes], first: int) -> list[bytes]:
    """RFC 6962 section 2.1.2: the proof that the first `first` leaves are a prefix of `leaves`.

    ProofBroken: `first` is not from 1 to the number of leaves.
    """
    if not 0 < first <= len(leaves):
        raise ProofBroken(f"no consistency proof from {first} to {len(leaves)} entries")
    return _subproof(leaves, first, known=True)


def _subproof(leaves: Sequence[bytes], first: int, *, known: bool) -> list[bytes]:
    size = len(leaves)
    if first == size:
        return [] if known else [root_of(leaves)]
    split = 1 << ((size - 1).bit_length() - 1)
    if first <= split:
        return [*_subproof(leaves[:split], first, known=known), root_of(leaves[split:])]
    return [*_subproof(leaves[split:], first - split, known=False), root_of(leaves[:split])]


def _climb(position: int, last: int) -> tuple[int, int]:
    """Up to the level at which `position` is a right child, or the leftmost node."""
    while not position & 1 and position != 0:
        position >>= 1
        last >>= 1
    return position, last


def verify_inclusion(*, leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """RFC 9162 section 2.1.3.2. ProofBroken: `path` does not show leaf hash `leaf` at `index` under `root`."""
    if not 0 <= index < size:
        raise ProofBroken(f"entry {index} cannot be in a tree of {size} entries")
    position, last, node = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise ProofBroken("the inclusion proof is too long")
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            position, last = _climb(position, last)
        else:
            node = node_hash(node, sibling)
        position >>= 1
        last >>= 1
    if last != 0:
        raise ProofBroken("the inclusion proof is too short")
    if node != root:
        raise ProofBroken("the inclusion proof leads to another root")


def verify_consistency(
    *, first: int, first_root: bytes, second: int, second_root: bytes, path: Sequence[bytes]
) -> None:
    """RFC 9162 section 2.1.4.2. ProofBroken: `path` does not show the first tree as a prefix of the second."""
    if not 0 < first <= second:
        raise ProofBroken(f"a tree of {first} entries cannot be a prefix of one of {second}")
    if first == second:
        if path or first_root != second_root:
            raise ProofBroken("two trees of one size differ")
        return
    steps = list(path)
    if first & (first - 1) == 0:
        steps.insert(0, first_root)
    if not steps:
        raise ProofBroken("the consistency proof is empty")
    position, last = first - 1, second - 1
    while position & 1:
        position >>= 1
        last >>= 1
    before = after = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise ProofBroken("the consistency proof is too long")
        if position & 1 or position == last:
            before = node_hash(step, before)
            after = node_hash(step, after)
            position, last = _climb(position, last)
        else:
            after = node_hash(after, step)
        position >>= 1
        last >>= 1
    if last != 0:
        raise ProofBroken("the consistency proof is too short")
    if before != first_root or after != second_root:
        raise ProofBroken("the consistency proof leads to other roots")
