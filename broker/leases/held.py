"""Who holds what on this replica, in memory: leases of connected workers, found by id, by session and by token.

The truth is in storage; this is what the hot path needs of it. Nothing here decides or writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from broker.policy.entitlements import Entitlements
from kms.port import Caller
from storage.records import LeaseRecord
from storage.records.leases import LeaseStage
from tokenbroker_client.wire import GoneCode

if TYPE_CHECKING:
    from broker.leases.reporting import Report

MISSED_MAX: Final = 10_000
"""Dropped leases of one watched token that are remembered; beyond, the longest dropped are not."""

Place = tuple[str, LeaseStage]
"""A token and the stage of it that is leased: a session has one lease of each."""


def place_of(record: LeaseRecord) -> Place:
    """Where a session holds this lease."""
    return (record.token, record.stage)


class Holder(Protocol):
    """What leasing needs of a session: who it is, what it holds, and a way to its worker that never waits."""

    session: str
    worker: str
    source: str
    public_key: bytes
    """What proved this session; while the worker has it no longer, the session may nothing."""
    closed: bool
    behind: bool
    """Whether much was unread after the last write; if not, it is neither congested nor choked."""
    caller: Caller
    actor: str
    entitlements: Entitlements
    leases: dict[Place, Held]
    """Held leases by token name and stage."""
    revoking: dict[str, LeaseRecord]
    """Revoked leases that the worker has not yet said it wiped, by lease id."""

    def send(self, frame: bytes) -> None:
        """Write one frame. A worker that does not read is cut off; this never waits and never raises."""
        ...

    def answer(self, request_id: int, frame: bytes) -> None:
        """Write the answer to a request and let its id be used again."""
        ...

    def reported(self, report: Report) -> None:
        """A report of this worker has been dealt with."""
        ...

    def acknowledged(self) -> None:
        """An acknowledgement of this worker has been dealt with."""
        ...

    @property
    def congested(self) -> bool:
        """Whether the worker has much left to read; pushes of values wait meanwhile."""
        ...

    @property
    def choked(self) -> bool:
        """Whether it has so much left to read that not even what it asks for is added."""
        ...

    def remember_gone(self, lease: str, code: GoneCode) -> None:
        """Keep for a while why this lease ended."""
        ...

    def why_gone(self, lease: str) -> GoneCode:
        """Why a lease that is not held ended, as far as this session remembers."""
        ...

    def close(self, code: int) -> None:
        """Begin to close the connection with this code; returns at once."""
        ...


class Held(msgspec.Struct, kw_only=True, eq=False):
    """One live lease of a connected worker. `record` is what storage has; `renew_at` and `expires` are monotonic.

    renew_at: equals `expires` where it is not to be renewed any more.

    sent: the version whose value its worker has. It is behind `record.version` where a push was written, and not
    confirmed in time to be sent. rejections: reported of it, and in no entry yet. slot: where the wheel has it, 0 for
    nowhere; the wheel's to change.
    """

    record: LeaseRecord
    holder: Holder
    expires: float
    renew_at: float
    sent: int
    slot: int = 0
    rejections: int = 0


class Holdings:
    """All held leases of this replica, and the sessions that hold them."""

    def __init__(self) -> None:
        """missed: for each token that is watched, the leases of it that were dropped here, as they were then."""
        self.by_lease: dict[str, Held] = {}
        self.missed: dict[str, dict[str, LeaseRecord]] = {}
        self._holders: dict[Holder, None] = {}
        self._by_member: dict[str, dict[str, Held]] = {}

    def enter(self, holder: Holder) -> None:
        """From now on this session may hold leases."""
        self._holders[holder] = None

    def leave(self, holder: Holder) -> None:
        """This session is gone; what it held is to be dropped first."""
        self._holders.pop(holder, None)

    def add(self, held: Held) -> None:
        """Take up a lease of a place where its session holds none yet."""
        record = held.record
        held.holder.leases[place_of(record)] = held
        self.by_lease[record.lease] = held
        if record.member:
            self._by_member.setdefault(record.member, {})[record.lease] = held

    def drop(self, held: Held) -> None:
        """Forget a lease; harmless when it is forgotten already."""
        if self.by_lease.get(held.record.lease) is not held:
            return
        del self.by_lease[held.record.lease]
        if member := held.record.member:
            del self._by_member[member][held.record.lease]
            if not self._by_member[member]:
                del self._by_member[member]
        if self.missed:
            self._miss(held.record)
        place = place_of(held.record)
        if held.holder.leases.get(place) is held:
            del held.holder.leases[place]

    def _miss(self, record: LeaseRecord) -> None:
        missed = self.missed.get(record.member or record.token)
        if missed is not None:
            missed[record.lease] = record
            while len(missed) > MISSED_MAX:
                del missed[next(iter(missed))]

    def loads(self, members: Sequence[str]) -> Counter[str]:
        """How many leases of their pool have the value of each of these members."""
        return Counter({member: len(self._by_member.get(member, ())) for member in members})

    def of_token(self, token: str) -> list[Held]:
        """The leases of one token, and those of a pool that have its value.

        Asks every session: a token changes seldom, and leases come and go all the time.
        """
        places: tuple[Place, ...] = ((token, "current"), (token, "previous"))
        found = [held for holder in self._holders for place in places if (held := holder.leases.get(place)) is not None]
        found += [held for held in self._by_member.get(token, {}).values() if held.record.token != token]
        return found

    def count_by_session(self) -> dict[str, int]:
        """How many leases each session of this replica holds."""
        return {holder.session: len(holder.leases) for holder in self._holders}

    def __len__(self) -> int:
        return len(self.by_lease)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self.by_lease.values()))
