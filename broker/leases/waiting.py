"""What waits for the desk: the broker's own operations first, then those of each worker in turn, renewals included.

So a worker that asks for much, or for the same again and again, waits for itself, and neither revocations nor others
wait for it. Deciding and writing is the desk's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import chain, zip_longest
from operator import attrgetter
from typing import Final

from broker.leases.operation import Operation

_OWN: Final = ""
_LEASES_NAMED: Final = attrgetter("leases_named")


class Waiting:
    """Operations by line: one line for the broker itself, one for each worker that waits; in a line, as they came.

    bound: operations of all workers. At it, only workers with less than their share of it may add one. One worker has
    at most a quarter of it, the broker itself four times as many.
    """

    def __init__(self, *, bound: int) -> None:
        self._bound = bound
        self._line_max = -(-bound // 4)
        self._own: deque[Operation] = deque()
        self._lines: dict[str, deque[Operation]] = {}
        self._turns: deque[deque[Operation]] = deque()
        self._count = 0

    def __len__(self) -> int:
        return len(self._own) + self._count

    def add(self, operation: Operation) -> bool:
        """Take it in, last in its line; False: there is no room for it."""
        line = self._lines.get(operation.line)
        if line is None:
            if operation.line == _OWN and len(self._own) >= 4 * self._bound:
                return False
            self.go_on(operation)
            return True
        waits = len(line)
        if waits >= self._line_max or (self._count >= self._bound and waits * (len(self._lines) + 1) >= self._bound):
            return False
        line.append(operation)
        self._count += 1
        return True

    def go_on(self, operation: Operation) -> None:
        """As `add`, for one that was taken in before, and is decided once more: there is always room for it."""
        if operation.line == _OWN:
            self._own.append(operation)
        else:
            self._line(operation.line).append(operation)
            self._count += 1

    def put_back(self, operations: Iterable[Operation]) -> None:
        """These were taken, and did not fit with others that were: first in their lines, in this order."""
        for operation in reversed(list(operations)):
            if operation.line == _OWN:
                self._own.appendleft(operation)
            else:
                self._line(operation.line).appendleft(operation)
                self._count += 1

    def take(self, *, operations_max: int, leases_max: int) -> list[Operation]:
        """The next ones: at least one, and no more than name `leases_max` leases together, unless it is one alone.

        While workers wait, the broker's own have half of the room, and what they leave.
        """
        if len(self) <= operations_max:
            everything = [*self._own, *filter(None, chain.from_iterable(zip_longest(*self._turns)))]
            if sum(map(_LEASES_NAMED, everything)) <= leases_max:
                self._own.clear()
                self._lines.clear()
                self._turns.clear()
                self._count = 0
                return everything
        taken: list[Operation] = []
        share = 2 if self._turns else 1
        room = leases_max // share
        while self._own and len(taken) < operations_max // share and (room >= self._own[0].leases_named or not taken):
            taken.append(self._own.popleft())
            room -= taken[-1].leases_named
        room += leases_max - leases_max // share
        own, turns = len(taken), self._turns
        while turns and len(taken) < operations_max:
            line = turns[0]
            room -= line[0].leases_named
            if room < 0 and taken:
                break
            taken.append(line.popleft())
            if line:
                turns.rotate(-1)
            else:
                turns.popleft()
                del self._lines[taken[-1].line]
        self._count -= len(taken) - own
        return taken

    def _line(self, name: str) -> deque[Operation]:
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = deque()
            self._turns.append(line)
        return line
