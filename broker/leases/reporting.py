"""Record what a worker says of a value that it uses: refused upstream, rate-limited there, or working.

A report says something about a version, so it changes no right. It counts only of a lease that this very session holds
now, and nothing is read from storage for it. A lease's row keeps the last report that was news; what says nothing new,
and every `ok` of a value that never gave trouble, is only counted.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

from broker.audit.entries import LeaseRejected
from broker.errors import BrokerError
from broker.leases.batch import Batch
from broker.leases.held import Held, Holder
from broker.leases.operation import Operation
from broker.leases.pools.witnessing import add, alarm, witnessed
from storage.port import Amended
from storage.records import LeaseRecord, MemberRecord
from storage.records.leases import LeaseReport
from tokenbroker_client.wire import ReportEvent

REPEATED: Final = timedelta(seconds=10)
"""The same trouble of a lease is recorded again after so long; meanwhile it is counted."""
APART: Final = timedelta(seconds=1)
"""Other news of a lease are recorded so far apart, but for the first rejection of each value, recorded at once."""


class Report(Operation):
    """A `report` frame, with those of the same kind that came while it waited."""

    __slots__ = (
        "_held",
        "_member",
        "_read_at",
        "_record",
        "_told",
        "count",
        "event",
        "holder",
        "lease",
        "retry_after_s",
        "version",
    )

    def __init__(
        self, *, holder: Holder, lease: str, event: ReportEvent, version: int | None, retry_after_s: float | None
    ) -> None:
        """version: the one that was used; None: the one that was sent last."""
        super().__init__(line=holder.worker)
        self.holder = holder
        self.lease = lease
        self.event = event
        self.version = version
        self.retry_after_s = retry_after_s
        self.count = 1
        self._held: Held | None = None
        self._record: LeaseRecord | None = None
        self._told = 0
        self._member: MemberRecord | None = None
        self._read_at = 0

    def again(self, *, version: int | None, retry_after_s: float | None) -> None:
        """The same was said once more before this was looked at."""
        self.version = version
        self.retry_after_s = retry_after_s
        self.count += 1

    def touches(self) -> tuple[str, ...]:
        return (self.lease,)

    def decide(self, batch: Batch) -> None:
        self._held = self._record = self._member = None
        self._told = 0
        held = batch.context.holdings.by_lease.get(self.lease)
        if held is None or held.holder is not self.holder:
            return
        row = held.record
        version = row.version if self.version is None else self.version
        if version > row.version:
            return
        self._held = held
        if not _is_news(row.report, self.event, version, batch.now, sent=row.version):
            return
        member = None
        if row.member:
            again, self._read_at = self.attempts > self._read_at, self.attempts + 1
            member = witnessed(
                batch, row, event=self.event, version=version, retry_after_s=self.retry_after_s, again=again
            )
        said = LeaseReport(event=self.event.value, at=batch.now, version=version, retry_after_s=self.retry_after_s)
        self._record = msgspec.structs.replace(row, rev=row.rev + 1, report=said)
        batch.amended.append(Amended(row, self._record))
        self._member = member
        if member is not None:
            add(batch, member)
        if self.event is ReportEvent.REJECTED:
            self._told = self.count
            batch.entries.append(
                LeaseRejected(
                    at=batch.now,
                    actor=self.holder.actor,
                    lease=self.lease,
                    token=row.token,
                    version=version,
                    session=self.holder.session,
                    count=held.rejections + self._told,
                )
            )

    def done(self, batch: Batch) -> None:
        self.holder.reported(self)
        held = self._held
        if held is None:
            return
        batch.context.reports[self.event] += self.count
        if self._record is not None:
            held.record = self._record
        if self._member is not None:
            batch.context.pools.changed(self._member)
            alarm(self._member, batch)
        if self.event is ReportEvent.REJECTED:
            held.rejections = (0 if self._told else held.rejections) + self.count - self._told

    def fail(self, error: BrokerError) -> None:
        """A report has no answer. One that was lost is repeated, if what it told of goes on."""
        self.holder.reported(self)


def _is_news(last: LeaseReport | None, event: ReportEvent, version: int, now: datetime, *, sent: int) -> bool:
    """Whether a report is worth a commit, after the last one that was. sent: the version that was sent last."""
    if last is None:
        return event is not ReportEvent.OK
    since = abs(now - last.at)
    if event is ReportEvent.OK:
        return last.event != event and since >= APART
    if (last.event, last.version) == (event, version):
        return since >= REPEATED
    # That a fresh version is refused as well must not be lost behind what was said of the one before.
    fresh = last.event != event or version == sent
    return since >= APART or (event is ReportEvent.REJECTED and fresh)
