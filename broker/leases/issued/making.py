"""Have a value made for a lease that is about to be granted: within bounds, on record first, sealed when it is there.

The row comes before the value, so that whatever goes wrong afterwards, a kill -9 too, what upstream made is found and
ended (`unmaking`). It becomes live in the commit that grants the lease, which is the desk's; this is not in its loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import msgspec
import structlog

from broker.admin.sealing import Sealer, relies_on
from broker.admin.stored import Stored
from broker.admin.values import check_content_type
from broker.audit.entries import IssuedFailed
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BadRequest, BrokerError, Conflict, RateLimited, Unavailable
from broker.ids import time_ordered_id
from broker.leases.issued.makers import Maker, Makers
from broker.leases.issued.rows import VERSION, sealed_name, to_end
from broker.upstream.errors import BadSettings, Failed, Refused, Unreachable, UpstreamError
from broker.upstream.port import NOTE_CHARS_MAX, NOTES_MAX, Issued
from storage.port import Delete, Expect
from storage.records import IssuedRecord, IssuerRecord, KeyringRecord, TokenRecord

log = structlog.get_logger()

ISSUE_S: Final = 10.0
"""Longest time that a worker waits for a value: its turn, the making of it and the sealing of it together."""
GRACE_S: Final = 30.0
"""So long after its row was written a value that no lease has got is ended, whatever upstream did late."""
AT_ONCE_MAX: Final = 8
"""Values of one token that this replica has made at a time; others wait, within `ISSUE_S`."""
REPLICA_AT_ONCE_MAX: Final = 256
"""The same of all tokens: upstreams that hang, 32 of them, do not keep others from being asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What a grant wants. lease: the one that the session has of the token already, or "".

    ttl_s: the longest that the lease can live, with all its renewals.
    """

    session: str
    worker: str
    groups: tuple[str, ...]
    token: TokenRecord
    lease: str
    ttl_s: float


class IssueCounts:
    """What happened since start, for metrics. failed: values that could not be made, by error code."""

    __slots__ = ("failed", "made", "refused")

    def __init__(self) -> None:
        self.made = 0
        self.refused = 0
        self.failed: Counter[str] = Counter()


class _First:
    """A session's first ask for a token, for those that come meanwhile. failure: why there is no value."""

    __slots__ = ("failure", "over")

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.failure: BrokerError | None = None


class _Gate:
    """The turns of one token on this replica. waiting: asks that have no row yet, by worker, "" for all of them."""

    __slots__ = ("door", "turns", "waiting")

    def __init__(self) -> None:
        self.door = asyncio.Lock()
        self.turns = asyncio.Semaphore(AT_ONCE_MAX)
        self.waiting: Counter[str] = Counter()


@dataclass(kw_only=True, slots=True)
class _Attempt:
    """How far one making has come. row: as it is on record. answered: whether upstream gave a value."""

    ask: Ask
    policy: IssuerRecord
    gate: _Gate
    row: IssuedRecord | None = None
    answered: bool = False
    waits: bool = False

    def enter(self) -> None:
        """Be counted among those that wait."""
        self.gate.waiting.update(("", self.ask.worker))
        self.waits = True

    def leave(self) -> None:
        """Be counted no more: there is a row, or nothing will be made."""
        if self.waits:
            self.waits = False
            self.gate.waiting.subtract(("", self.ask.worker))
            self.gate.waiting += Counter()  # forgets workers of whom nothing waits


class Issuing:
    """Gives grants their values. `provide` is called by the desk's fetching, one task for each grant."""

    def __init__(self, *, authority: Authority, stored: Stored, sealer: Sealer, makers: Makers, clock: Clock) -> None:
        self._authority = authority
        self._stored = stored
        self._sealer = sealer
        self._makers = makers
        self._clock = clock
        self._gates: dict[str, _Gate] = {}
        self._turns = asyncio.Semaphore(REPLICA_AT_ONCE_MAX)
        self._under_way: dict[tuple[str, str], _First] = {}
        self.counts = IssueCounts()

    def sign(self, record: IssuedRecord) -> IssuedRecord:
        """The row as the desk writes it."""
        return self._authority.sign(record)

    async def provide(self, ask: Ask) -> IssuedRecord | None:
        """The value of the lease that the session has, or a new one, whose row is still `making`.

        None: another request of the session had one made meanwhile; decide anew. RateLimited: a bound, which it names.
        Unavailable: it cannot be had now. Both also where that is what another request of the session met meanwhile:
        upstream is not asked once for each. Cancelled, what was begun is ended by its row's time.
        """
        if ask.lease:
            return await self._on_record(ask)
        place = (ask.session, ask.token.name)
        first = self._under_way.get(place)
        if first is not None:
            await first.over.wait()
            if first.failure is not None:
                raise first.failure
            return None
        first = self._under_way[place] = _First()
        try:
            return await self._new(ask)
        except BrokerError as error:
            first.failure = error
            raise
        finally:
            del self._under_way[place]
            first.over.set()

    async def _on_record(self, ask: Ask) -> IssuedRecord:
        row = await self._stored.get(IssuedRecord, (ask.lease,))
        # Leases carry no MAC: one that another hand wrote may name a lease that was granted to somebody else.
        if row is None or row.state != "live" or (row.token, row.worker) != (ask.token.name, ask.worker):
            raise Unavailable(f"the value of lease {ask.lease} is no more; release the lease and ask again")
        self._authority.verify(row)
        return row

    async def _new(self, ask: Ask) -> IssuedRecord:
        token = ask.token.name
        policy = self._authority.issuers.get((token,))
        if policy is None:
            raise Unavailable(f"token {token}: this replica does not know yet how its values are made; ask again")
        attempt = _Attempt(ask=ask, policy=policy, gate=self._gates.setdefault(token, _Gate()))
        try:
            async with asyncio.timeout(ISSUE_S):
                return await self._made(attempt)
        except TimeoutError:
            failure: UpstreamError = Unreachable(f"no value was made within {ISSUE_S:g} s; it will be tried again")
        except UpstreamError as error:
            failure = error
        except RateLimited:
            raise
        except Unavailable as error:
            if attempt.row is None:
                raise  # storage or a KMS cannot serve, and upstream was asked for nothing
            failure = Unreachable(error.message)
        except BrokerError as error:
            failure = BadSettings(error.message)
        finally:
            attempt.leave()
        self.counts.failed[failure.code] += 1
        log.warning("value_not_issued", token=token, issuer=policy.issuer, worker=ask.worker, error=failure.message)
        await self._give_up(attempt, failure)
        raise Unavailable(f"token {token}: no value could be made for you now ({failure.code}); ask again later")

    async def _made(self, attempt: _Attempt) -> IssuedRecord:
        ask, policy, gate = attempt.ask, attempt.policy, attempt.gate
        await self._queue(attempt)
        async with gate.turns, self._turns, self._makers.at_work(policy) as maker:
            row = attempt.row = await self._admit(ask, maker)
            attempt.leave()
            wanted = maker.wanted(lease=row.lease, worker=ask.worker, groups=ask.groups, ttl_s=ask.ttl_s)
            issued = await maker.issuer.issue(wanted)
            attempt.answered = True
            try:
                # Known before anything else can fail: what only its time ends keeps its place until then.
                row = attempt.row = msgspec.structs.replace(
                    row, handle=_checked({**row.handle, **issued.handle}), ends_at=issued.ends_at
                )
                row = await self._sealed(row, issued, policy)
            finally:
                issued.value.wipe()
        self.counts.made += 1
        return row

    async def _queue(self, attempt: _Attempt) -> None:
        """Take a place among those that wait, if there is room for one more value. RateLimited."""
        waiting = attempt.gate.waiting
        async with attempt.gate.door:
            # Looked at before the rows are counted: who gets his row meanwhile is counted twice rather than never.
            beside = (waiting[""], waiting[attempt.ask.worker])
            await self._check_room(attempt.ask, attempt.policy, beside=beside)
            attempt.enter()

    async def _check_room(self, ask: Ask, policy: IssuerRecord, *, beside: tuple[int, int]) -> None:
        """Raise RateLimited unless one more value may exist upstream, beside those on record and these."""
        token = policy.token
        for prefix, bound, more, whose in (
            ((token,), policy.leases_max, beside[0], "in all"),
            ((token, ask.worker), policy.worker_leases_max, beside[1], f"of worker {ask.worker}"),
        ):
            there = 0
            if more < bound:
                there = await self._stored.count(IssuedRecord, index="token", prefix=prefix, limit=bound + 1)
            if there + more >= bound:
                self.counts.refused += 1
                raise RateLimited(
                    f"token {token}: {bound} values may exist at a time {whose}, and as many do; release a lease, or "
                    "wait until one that has ended is gone upstream",
                    retry_after_s=1.0,
                )

    async def _admit(self, ask: Ask, maker: Maker) -> IssuedRecord:
        """The row, durable. Nothing is made before; what could not be counted for others is counted here.

        Replicas that write rows at the same time all see them when they count behind that, so of those there are more
        than the bound of, none is made; some may be refused although there would have been room for one.
        """
        row, ring = self._row(ask, maker)
        relied = (
            relies_on(ring),
            Expect(TokenRecord, ask.token.key, ask.token.rev),
            Expect(IssuerRecord, maker.policy.key, maker.policy.rev),
        )
        try:
            await self._authority.commit((), inserts=(row,), expects=relied)
        except Conflict:
            raise Unavailable(
                f"token {ask.token.name}: it was changed a moment ago; ask again", retry_after_s=0.2
            ) from None
        try:
            await self._check_room(ask, maker.policy, beside=(-1, -1))
        except BrokerError:
            await self._forget(row)
            raise
        return row

    def _row(self, ask: Ask, maker: Maker) -> tuple[IssuedRecord, KeyringRecord]:
        policy, now = maker.policy, self._clock.now()
        ring = self._authority.keyrings.get((ask.token.keyring,))
        if ring is None:
            raise Unavailable(f"token {policy.token}: its keyring is not known here yet; ask again")
        lease = time_ordered_id(now)
        wanted = maker.wanted(lease=lease, worker=ask.worker, groups=ask.groups, ttl_s=ask.ttl_s)
        row = IssuedRecord(
            lease=lease,
            token=policy.token,
            worker=ask.worker,
            issuer=policy.issuer,
            state="making",
            handle=_checked(dict(maker.issuer.handle(wanted))),
            content_type="",
            keyring=ring.name,
            data_key=ring.active_data_key,
            fmt=0,
            sealed=b"",
            made_at=now,
            ends_at=None,
            due_at=now + timedelta(seconds=GRACE_S),
        )
        return row, ring

    async def _sealed(self, row: IssuedRecord, issued: Issued, policy: IssuerRecord) -> IssuedRecord:
        """The row with its value, still to be written. Failed: what the issuer gave cannot be leased."""
        now, value = self._clock.now(), issued.value.reveal()
        if issued.ends_at is not None and issued.ends_at <= now:
            raise Failed(f"the issuer {policy.issuer} made a value that is over already; look at the clocks")
        try:
            content_type = check_content_type(issued.content_type, value)
            sealed, ring = await self._sealer.seal(
                token=sealed_name(row.token, row.lease), version=VERSION, keyring=row.keyring, value=value
            )
        except BadRequest as error:
            raise Failed(f"the issuer {policy.issuer} made what cannot be stored: {error.message}") from None
        if sealed.data_key != row.data_key:
            # The keyring was rotated meanwhile. The row must name the data key before anything is sealed under it that
            # is kept, or the key could be destroyed as one that nothing needs.
            row = msgspec.structs.replace(row, rev=row.rev + 1, data_key=sealed.data_key)
            await self._authority.commit((), updates=(row,), expects=(relies_on(ring),))
        return msgspec.structs.replace(row, content_type=content_type, fmt=sealed.fmt, sealed=sealed.blob)

    async def _forget(self, row: IssuedRecord) -> None:
        """Delete the row of what upstream was never asked for; if that fails, its time brings it to `unmaking`."""
        try:
            await self._authority.commit((), deletes=(Delete(IssuedRecord, row.key, row.rev),))
        except BrokerError as error:
            log.warning("issued_row_left", lease=row.lease, token=row.token, error=error.message)

    async def _give_up(self, attempt: _Attempt, failure: UpstreamError) -> None:
        """Have what may exist upstream ended: at once where upstream has answered, else when what is late has come."""
        row = attempt.row
        if row is None:
            return
        now = self._clock.now()
        certain = attempt.answered or isinstance(failure, (BadSettings, Refused))
        after = to_end(row, now=now, due_at=now if certain else row.due_at)
        after = msgspec.structs.replace(after, error=failure.message[:NOTE_CHARS_MAX], sealed=b"")
        entry = IssuedFailed(
            at=now, actor="system", lease=row.lease, token=row.token, issuer=row.issuer, step="make", code=failure.code
        )
        try:
            await self._authority.commit((entry,), updates=(after,))
        except BrokerError as error:
            log.warning("issued_row_left", lease=row.lease, token=row.token, error=error.message)


def _checked(handle: dict[str, str]) -> dict[str, str]:
    """The handle, if it is within its bounds. Failed."""
    if len(handle) > NOTES_MAX or any(len(text) > NOTE_CHARS_MAX for pair in handle.items() for text in pair):
        raise Failed(f"the issuer gave a handle over its bounds: {NOTES_MAX} names and texts of {NOTE_CHARS_MAX}")
    return handle
