"""The growing end of the log in memory: the tree over what storage confirmed, in order of sequence number. No I/O.

Confirmations may arrive in any order; storage may also be unable to say whether it wrote something. The tree grows
only over a gapless run of entries that this process wrote itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from broker.audit.errors import LogBroken
from broker.audit.tree import Frontier

DOUBTS_MAX = 4096
"""Doubtful commits remembered. An older one that was written after all leaves the tree waiting until a restart."""


class Tail:
    """`signed` is set by whoever makes a checkpoint durable: how many entries the newest one covers."""

    def __init__(self) -> None:
        self.frontier = Frontier()
        self.landed = 0
        self.signed = 0
        self._ahead: dict[int, Sequence[bytes]] = {}
        self._doubts: deque[tuple[bytes, ...]] = deque(maxlen=DOUBTS_MAX)

    @property
    def unsigned(self) -> int:
        """Durable entries that no durable checkpoint covers."""
        return self.landed - self.signed

    @property
    def gap(self) -> int | None:
        """The number of the first missing entry, if later ones have landed already."""
        return self.frontier.size if self._ahead else None

    @property
    def has_doubts(self) -> bool:
        """Whether a commit was left of which storage could not say if it was written."""
        return bool(self._doubts)

    def land(self, first_seq: int, leaves: Sequence[bytes]) -> None:
        """Take the leaf hashes of one confirmed commit.

        LogBroken: storage gave numbers that were given before; somebody removed entries beneath a running broker.
        """
        if first_seq < self.frontier.size or first_seq in self._ahead:
            raise LogBroken(f"storage gave number {first_seq} a second time: stored entries were removed")
        self.landed += len(leaves)
        self._ahead[first_seq] = leaves
        while (run := self._ahead.pop(self.frontier.size, None)) is not None:
            self.frontier.extend(run)

    def doubt(self, leaves: Sequence[bytes]) -> None:
        """Remember a commit that may have been written or not."""
        self._doubts.append(tuple(leaves))

    def settle(self, first_seq: int, leaves: Sequence[bytes]) -> bool:
        """Take a block found in storage at the gap, if it is one of the doubtful commits; whether it was."""
        try:
            self._doubts.remove(tuple(leaves))
        except ValueError:
            return False
        self.land(first_seq, leaves)
        return True
