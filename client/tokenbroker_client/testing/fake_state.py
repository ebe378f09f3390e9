"""What a fake broker remembers: tokens, workers, leases, and what it has seen. Sockets are in `fake_session`."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from tokenbroker_client.wire import (
    Ack,
    AckStatus,
    ErrorCode,
    GoneCode,
    Granted,
    LeaseRequest,
    Report,
    ReportEvent,
    Rotated,
    Stage,
    encode_value,
)


@dataclass(kw_only=True)
class FakeToken:
    """A token's current value, and the one before."""

    name: str
    value: bytes
    version: int
    content_type: str
    previous: FakeToken | None = None

    def of(self, stage: Stage) -> FakeToken | None:
        """What a lease of this stage gets."""
        return self if stage is Stage.CURRENT else self.previous


@dataclass(kw_only=True)
class FakeLease:
    """A lease that the fake gave. `version` is the one sent last, `wait_s` how long its request would stand in line."""

    lease: str
    token: str
    worker: str
    session: str
    version: int
    ttl_s: float
    ends_at: float
    ceiling_at: float
    stage: Stage = Stage.CURRENT
    code: str | None = None
    """Why it is over (a `GoneCode`); None while it lives."""
    wait_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class SeenAck:
    """An acknowledgement as it came."""

    worker: str
    token: str
    lease: str
    version: int | None
    status: AckStatus
    detail: str | None


@dataclass(frozen=True, kw_only=True)
class SeenReport:
    """A report as it came."""

    worker: str
    token: str
    lease: str
    event: ReportEvent
    version: int | None
    retry_after_s: float | None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer that a test ordered in place of a grant."""

    code: ErrorCode
    retry_after_s: float | None


@dataclass(kw_only=True)
class FakeState:
    """Everything that outlives a connection. Times are seconds of `elapsed`."""

    cluster: str
    ttl_s: float
    max_ttl_s: float
    heartbeat_s: float
    elapsed: Callable[[], float]
    tokens: dict[str, FakeToken] = field(default_factory=dict)
    workers: dict[str, bytes] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    leases: dict[str, FakeLease] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    codes: dict[str, str] = field(default_factory=dict)
    acks: list[SeenAck] = field(default_factory=list)
    reports: list[SeenReport] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    limit_at: float = math.inf
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    acked: asyncio.Event = field(default_factory=asyncio.Event)
    reported: asyncio.Event = field(default_factory=asyncio.Event)

    def grant(self, request: LeaseRequest, *, worker: str, session: str) -> Granted | Refusal:
        """Decide a lease request, and enter the lease."""
        if self.refusals:
            return self.refusals.pop(0)
        known = self.tokens.get(request.token)
        if known is None or request.token in self.denied:
            return Refusal(code=ErrorCode.DENIED, retry_after_s=None)
        stage = request.stage or Stage.CURRENT
        token = known.of(stage)
        if token is None:
            return Refusal(code=ErrorCode.NOT_FOUND, retry_after_s=None)
        asked_s = min(request.ttl_s or self.ttl_s, self.max_ttl_s)
        lease = self._held(token.name, session, stage)
        if lease is None:
            lease = FakeLease(
                lease=secrets.token_urlsafe(15),
                token=token.name,
                worker=worker,
                session=session,
                version=token.version,
                ttl_s=asked_s,
                ends_at=0.0,
                ceiling_at=self.elapsed() + self.max_ttl_s,
                stage=stage,
                wait_s=request.wait_s,
            )
            self.leases[lease.lease] = lease
        lease.ttl_s = asked_s
        lease.version = token.version
        left_s = self.renew(lease)
        value, encoding = encode_value(token.value)
        return Granted(
            id=request.id,
            lease=lease.lease,
            token=token.name,
            version=token.version,
            value=value,
            encoding=encoding,
            content_type=token.content_type,
            ttl_s=left_s,
            max_ttl_s=self.max_ttl_s,
            expires_at=0.0,
            stage=stage,
        )

    def renew(self, lease: FakeLease) -> float:
        """Give a lease its whole span again, up to its ceiling, and return the seconds it has."""
        present = self.elapsed()
        left_s = max(0.0, min(lease.ttl_s, lease.ceiling_at - present, self.limit_at - present))
        lease.ends_at = present + left_s
        return left_s

    def live(self, lease: str, worker: str) -> FakeLease | str:
        """Return a worker's live lease, or the code that says why it has none."""
        entry = self.leases.get(lease)
        if entry is None or entry.worker != worker:
            return GoneCode.UNKNOWN
        if entry.code is None and self.elapsed() >= entry.ends_at:
            entry.code = GoneCode.EXPIRED
        return entry if entry.code is None else entry.code

    def rotated(self, lease: FakeLease, *, previous_valid_s: float | None = None) -> Rotated:
        """Write the push that brings a lease to the version it follows. There has to be one."""
        token = self.tokens[lease.token].of(lease.stage)
        assert token is not None, f"{lease.token} has no {lease.stage} version"
        lease.version = token.version
        value, encoding = encode_value(token.value)
        return Rotated(
            lease=lease.lease,
            token=token.name,
            version=token.version,
            value=value,
            encoding=encoding,
            content_type=token.content_type,
            previous_valid_s=previous_valid_s,
        )

    def saw(self, ack: Ack, *, worker: str) -> None:
        """Enter an acknowledgement."""
        lease = self.leases.get(ack.lease)
        self.acks.append(
            SeenAck(
                worker=worker,
                token=lease.token if lease is not None else "",
                lease=ack.lease,
                version=ack.version,
                status=ack.status,
                detail=ack.detail,
            )
        )
        self.acked.set()

    def heard(self, report: Report, *, worker: str) -> None:
        """Enter a report."""
        lease = self.leases.get(report.lease)
        self.reports.append(
            SeenReport(
                worker=worker,
                token=lease.token if lease is not None else "",
                lease=report.lease,
                event=report.event,
                version=report.version,
                retry_after_s=report.retry_after_s,
            )
        )
        self.reported.set()

    def _held(self, token: str, session: str, stage: Stage) -> FakeLease | None:
        for lease in self.leases.values():
            if (lease.token, lease.session, lease.stage) == (token, session, stage):
                found = self.live(lease.lease, lease.worker)
                if isinstance(found, FakeLease):
                    return found
        return None
