"""Bring held leases in line with rows that another replica wrote, once everything that was being written when it was
told is held.

A lease that was durable before another replica revoked it, and is held here only after, would otherwise stay live here
until its next renewal. What a row means for a held lease is `Context.reconcile`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from broker.errors import BrokerError
from broker.leases.batch import Batch
from broker.leases.operation import Missing, Operation

Named = Callable[[], Collection[str]]


class Reconcile(Operation):
    """Reads the rows of the named leases that are held here. Writes nothing; workers hear of what has ended."""

    __slots__ = ("_failed", "_named")

    def __init__(self, *, named: Named, failed: Callable[[Named], None]) -> None:
        """failed: told of what was named when it could not be carried out now."""
        super().__init__()
        self._named = named
        self._failed = failed

    def touches(self) -> tuple[str, ...]:
        return ()

    def decide(self, batch: Batch) -> None:
        if not self.fetched:
            # Here all earlier batches are finished; whoever holds one of these leases from now on has read its row.
            held = batch.context.holdings.by_lease
            if leases := tuple(lease for lease in self._named() if lease in held):
                raise Missing(leases=leases)
        # Not in `done`: what others of this batch write does not change what was read, and deciding it again, after a
        # lost compare-and-set of theirs, finds nothing left to do.
        for lease, row in self.fetched.items():
            batch.context.reconcile(lease, row)

    def done(self, batch: Batch) -> None:
        """Nothing was written."""

    def fail(self, error: BrokerError) -> None:
        self._failed(self._named)
