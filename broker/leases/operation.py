"""What the desk does with an operation, and what an operation may say. The operations themselves have a file each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

from broker.errors import BrokerError
from storage.records import IssuedRecord, LeaseRecord, VersionRecord

if TYPE_CHECKING:
    from broker.leases.batch import Batch
    from broker.leases.granting import Grant
    from kms.port import Caller


_NOTHING: Final[Mapping[str, LeaseRecord | None]] = MappingProxyType({})


class Missing(Exception):
    """Deciding needs something that is not in memory; the desk fetches it and asks again.

    heads: token names. leases: lease ids whose rows the operation wants in `fetched`. sealed: a version whose data key
    is not cached, with the worker on whose behalf it is opened. first: what is to be done first, which takes its time;
    what it raises the operation fails with.
    """

    def __init__(
        self,
        *,
        heads: tuple[str, ...] = (),
        leases: tuple[str, ...] = (),
        sealed: tuple[VersionRecord, Caller] | None = None,
        first: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__("not in memory")
        self.heads = heads
        self.leases = leases
        self.sealed = sealed
        self.first = first


class InLine(Exception):
    """Deciding needs a place at a member of a pool; the desk has it stand in line, and asks again when it has one."""

    def __init__(self, grant: Grant) -> None:
        super().__init__("no place yet")
        self.grant = grant


class Operation(ABC):
    """One request, push or duty about leases.

    The desk calls `decide` (again, if it had to fetch something or lost a compare-and-set), then commits the batch,
    then calls `done`; or, at any point, `fail` once. `decide` changes nothing but the batch, and that only when it no
    longer can raise; memory changes in `done`.
    """

    __slots__ = ("attempts", "fetched", "leases_named", "line", "refused")

    ATTEMPTS_MAX: ClassVar[int] = 16
    gives: ClassVar[bool] = False
    """Whether it hands out a value or extends a right: refused while the replica may not serve."""

    def __init__(self, line: str = "", *, leases_named: int = 1) -> None:
        """line: the worker whose turn this takes; "" for nobody's, as revocations. leases_named: how many."""
        self.line = line
        self.leases_named = leases_named
        self.attempts = 0
        self.fetched: Mapping[str, LeaseRecord | None] = _NOTHING
        self.refused: BrokerError | None = None
        """Why it will not happen, found out while something was fetched for it; the next batch records it."""

    @abstractmethod
    def touches(self) -> tuple[str, ...]:
        """What no other operation of a batch may touch, unless it can `join`: lease ids, or session and token before
        there is one.
        """

    @abstractmethod
    def decide(self, batch: Batch) -> None:
        """Add what shall be written to the batch. Raises BrokerError (then `fail` is called) or Missing."""

    def join(self, first: Operation | None, batch: Batch) -> bool:
        """Be decided with `first`, which was decided in this batch and touches the same, and get what it gets.

        False: it waits for the next batch. first: None where another one that touches the same waits already, which
        must come before. Raises as `decide` does.
        """
        return False

    @abstractmethod
    def done(self, batch: Batch) -> None:
        """What was decided is durable: change memory, answer, push."""

    def goes_on_without(self, token: str) -> bool:
        """Told that this token cannot be read now; whether the rest may be decided all the same. If not, it fails."""
        return False

    def left_over(self, now: datetime) -> tuple[IssuedRecord, ...]:
        """It was refused, and `fail` comes next: the rows by which what was made for it is ended, still unsigned."""
        return ()

    @abstractmethod
    def fail(self, error: BrokerError) -> None:
        """It will not happen."""
