"""A change that was decided but not made, and the loop that makes it although others change things meanwhile.

What a plan says is decided by the services; signing rows and appending the audit entries is `broker.authority`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from broker.admin.errors import PreconditionFailed
from broker.admin.once import NO_ASIDE, Aside
from broker.audit.entries import Entry
from broker.authority.authority import Authority
from broker.errors import Conflict
from storage.port import Delete, Expect
from storage.table import Key, Record

T = TypeVar("T")

ATTEMPTS_MAX: Final = 16
"""Each lost attempt means that somebody else's change of the same thing was made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan(Generic[T]):
    """One commit, and what to answer when it is durable. expects, announce: as `storage.port.Commit` has them."""

    result: T
    entries: tuple[Entry, ...]
    inserts: tuple[Record, ...] = ()
    updates: tuple[Record, ...] = ()
    deletes: tuple[Delete, ...] = ()
    expects: tuple[Expect, ...] = ()
    announce: tuple[tuple[str, Key], ...] = ()
    aside: Aside = NO_ASIDE

    @property
    def changes_nothing(self) -> bool:
        """Whether everything is already as it was asked for."""
        return not (self.entries or self.inserts or self.updates or self.deletes)


def joined(result: T, *plans: Plan[Any]) -> Plan[T]:
    """One commit of all these plans. What several of them rely on is named once.

    Conflict: two of them rely on different revisions of one row; deciding again finds it as it is now.
    """
    expects = dict.fromkeys(expect for plan in plans for expect in plan.expects)
    if len({(expect.kind, expect.key) for expect in expects}) < len(expects):
        raise Conflict("it changed while this was decided; retry")
    return Plan(
        result=result,
        entries=tuple(entry for plan in plans for entry in plan.entries),
        inserts=tuple(row for plan in plans for row in (*plan.inserts, *plan.aside.inserts)),
        updates=tuple(row for plan in plans for row in (*plan.updates, *plan.aside.updates)),
        deletes=tuple(delete for plan in plans for delete in plan.deletes),
        expects=tuple(expects),
        announce=tuple(name for plan in plans for name in plan.announce),
    )


async def carry_out(authority: Authority, decide: Callable[[], Awaitable[Plan[T]]]) -> T:
    """Decide and commit, again when something changed in between, at most 16 times; the result once it is durable.

    `decide` reads what is true and raises what it refuses; a Conflict of its own is final. Conflict: it kept changing.
    Raises what `Authority.commit` raises. A cancelled commit is whole or absent.
    """
    for attempt in range(1, ATTEMPTS_MAX + 1):
        plan = await decide()
        if plan.changes_nothing:
            return plan.result
        try:
            await authority.commit(
                plan.entries,
                inserts=(*plan.inserts, *plan.aside.inserts),
                updates=(*plan.updates, *plan.aside.updates),
                deletes=plan.deletes,
                expects=plan.expects,
                announce=plan.announce,
            )
        except Conflict:
            if attempt == ATTEMPTS_MAX:
                raise
            continue
        return plan.result
    raise AssertionError("the last attempt returns or raises")


def check_revision(thing: str, record: Record, if_match: int | None) -> None:
    """Let a change go on if the caller named no revision, or the one that is stored. PreconditionFailed: another."""
    if if_match is not None and record.rev != if_match:
        raise PreconditionFailed(
            f"{thing} is at revision {record.rev}, not {if_match}; read it again, then repeat the change",
            current=record.rev,
        )
