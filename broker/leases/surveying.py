"""Find out which leases a change concerns, once everything that was being written when it came is held.

A grant that was decided before the change and is confirmed after it would otherwise be looked at by nobody. The desk
carries out one batch after the other, so an operation that is decided now sees all that earlier batches brought.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from broker.errors import BrokerError
from broker.leases.batch import Batch
from broker.leases.held import Held
from broker.leases.operation import Missing, Operation

Find = Callable[[], Sequence[Held]]


class Survey(Operation):
    """Hands what `find` gives to `found`. Writes nothing, and answers nobody."""

    __slots__ = ("_failed", "_find", "_found", "_heads")

    def __init__(
        self,
        *,
        find: Find,
        found: Callable[[Sequence[Held]], None],
        failed: Callable[[Survey], None],
        heads: tuple[str, ...] = (),
    ) -> None:
        """failed: told when it could not be carried out now.

        heads: tokens that are about to be looked at for each lease. They are read once beforehand, if they can be.
        """
        super().__init__()
        self._heads = heads
        self._find = find
        self._found = found
        self._failed = failed

    def touches(self) -> tuple[str, ...]:
        return ()

    def decide(self, batch: Batch) -> None:
        # Else each of the leases would be decided in vain, and wait for the same head. Asked for once: where it cannot
        # be read, the leases are looked at all the same, for a right that was lost ends without it.
        heads, self._heads = self._heads, ()
        if any(name not in batch.context.heads.known for name in heads):
            raise Missing(heads=heads)
        # Here and not in `done`: what others of this batch write, and whether that succeeds, is nothing to wait for.
        # Deciding it again finds the same again, which does no harm.
        self._found(self._find())

    def done(self, batch: Batch) -> None:
        """Nothing was written."""

    def fail(self, error: BrokerError) -> None:
        self._failed(self)
