"""Hand out one-time codes, and register the worker that redeems one with a key it proves to hold.

A code is good for one worker name, once, for 15 minutes. Only the SHA-256 of its secret is stored.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.admin.credentials import Code, mint_code, parse_code
from broker.admin.errors import EnrolmentRefused, TooMany
from broker.admin.once import Once, nothing_beside
from broker.admin.plan import Plan, carry_out
from broker.admin.public_key import check_public_key, key_sha256
from broker.admin.worker_terms import parse_groups, with_added_key
from broker.audit.entries import EnrolmentIssued, EnrolmentWithdrawn, WorkerChanged
from broker.audit.entries import EnrolmentRefused as EnrolmentRefusedEntry
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import NotFound
from broker.policy.errors import excerpt
from broker.policy.names import parse_worker_name
from broker.secret import Secret
from broker.vault.pacing import Pace
from storage.port import Delete
from storage.records import EnrolmentRecord, WorkerKey, WorkerRecord
from tokenbroker_client.transcript import enrolment_transcript

CODE_LIFE: Final = timedelta(minutes=15)
KEPT: Final = timedelta(days=1)
"""How long a code stays on record after it expired, so that a late try is told apart in the audit log."""
CODES_MAX: Final = 10_000
CLEARED_MAX: Final = 100
"""Old codes forgotten with each one issued."""
NOISE_PER_S: Final = 2.0
NOISE_BURST: Final = 50
"""Refusals of codes that were never issued which go on record: strangers must not fill the log."""

_NO_HASH: Final = bytes(32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Issued:
    """A code, shown once; whoever takes it wipes it. before: the worker as it is, None if the code will make it."""

    record: EnrolmentRecord
    code: Secret
    before: WorkerRecord | None


class _Unacceptable(Exception):
    """Why a code is refused: for the audit log, never for the one who asked."""

    def __init__(self, reason: str, *, enrolment: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.enrolment = enrolment


class Enrolment:
    """Issues and redeems codes."""

    def __init__(self, *, authority: Authority, clock: Clock) -> None:
        self._authority = authority
        self._clock = clock
        self._noise = Pace(rate_per_s=NOISE_PER_S, burst=NOISE_BURST)

    async def issue(self, worker: str, *, groups: Sequence[str], actor: str, once: Once = nothing_beside) -> Issued:
        """A fresh code for a worker, there already or not; groups: what the worker gets, none: as it has them.

        TooMany: 10 000 codes are on record. BadRequest: a name out of bounds.
        """
        parse_worker_name(worker)
        checked = parse_groups(groups)
        enrolment, code, secret_sha256 = mint_code()
        now = self._clock.now()
        record = EnrolmentRecord(
            id=enrolment,
            secret_sha256=secret_sha256,
            worker=worker,
            groups=checked,
            created_by=actor,
            created_at=now,
            expires_at=now + CODE_LIFE,
            used_at=None,
        )

        async def decide() -> Plan[Issued]:
            cleared = self._outlived(now)
            if len(self._authority.enrolments) - len(cleared) >= CODES_MAX:
                raise TooMany(f"enrolment codes: {CODES_MAX} are on record; wait until older ones have expired")
            entry = EnrolmentIssued(
                at=now, actor=actor, enrolment=enrolment, worker=worker, expires_at=record.expires_at
            )
            return Plan(
                result=Issued(record=record, code=code, before=self._authority.workers.get((worker,))),
                entries=(entry,),
                inserts=(record,),
                deletes=cleared,
                aside=await once(enrolment),
            )

        return await carry_out(self._authority, decide)

    async def withdraw(self, enrolment: str, *, actor: str) -> None:
        """Make a code worth nothing before it is used. NotFound: there is no such code, or it is used already."""

        async def decide() -> Plan[None]:
            record = self._authority.enrolments.get((enrolment,))
            if record is None or record.used_at is not None:
                raise NotFound(
                    f"enrolment {excerpt(enrolment)}: there is no open code of that id; if it was used, remove the key "
                    "that it added (`worker show`, `worker remove-key`)"
                )
            entry = EnrolmentWithdrawn(at=self._clock.now(), actor=actor, enrolment=record.id, worker=record.worker)
            return Plan(result=None, entries=(entry,), deletes=(Delete(EnrolmentRecord, record.key, record.rev),))

        return await carry_out(self._authority, decide)

    async def redeem(self, code: str, *, public_key: bytes, signature: bytes, source: str) -> WorkerRecord:
        """Register the code's worker with this key, or add the key to it; the worker as it is then.

        signature: Ed25519 by that key over the enrolment transcript (`tokenbroker_client.transcript`). Of many who
        redeem one code at once, one succeeds. EnrolmentRefused: unknown, used, expired or malformed code, wrong proof,
        a disabled worker: all alike, and the reason goes to the audit log. KeyRefused: says nothing of the code.
        """
        check_public_key(public_key)
        try:
            parsed = parse_code(code)
            # The proof is checked before the code is looked up, so that time tells nothing about codes.
            _check_proof(parsed, public_key, signature)
            return await carry_out(self._authority, lambda: self._redemption(parsed, public_key))
        except _Unacceptable as refused:
            await self._record_refusal(refused, source)
            raise EnrolmentRefused from None

    async def _redemption(self, code: Code | None, public_key: bytes) -> Plan[WorkerRecord]:
        now = self._clock.now()
        record = self._acceptable(code, now)
        before = self._authority.workers.get((record.worker,))
        if before is not None and before.disabled:
            raise _Unacceptable("worker is disabled", enrolment=record.id)
        key = WorkerKey(public_key=public_key, added_at=now)
        worker = _enrolled(record, before, key)
        entry = WorkerChanged(
            at=now,
            actor=f"worker:{worker.name}",
            worker=worker.name,
            change="enrolled",
            key_sha256=key_sha256(public_key),
            groups=worker.groups,
        )
        used = msgspec.structs.replace(record, rev=record.rev + 1, used_at=now)
        return Plan(
            result=worker,
            entries=(entry,),
            inserts=(worker,) if before is None else (),
            updates=(used,) if before is None else (used, worker),
        )

    def _acceptable(self, code: Code | None, now: datetime) -> EnrolmentRecord:
        record = None if code is None else self._authority.enrolments.get((code.enrolment,))
        stored = _NO_HASH if record is None else record.secret_sha256
        given = _NO_HASH if code is None else code.secret_sha256
        matches = hmac.compare_digest(stored, given)
        if record is None or not matches:
            raise _Unacceptable("no such code")
        if record.used_at is not None:
            raise _Unacceptable("code is used", enrolment=record.id)
        if record.expires_at <= now:
            raise _Unacceptable("code is expired", enrolment=record.id)
        return record

    async def _record_refusal(self, refused: _Unacceptable, source: str) -> None:
        """Every refusal of a code that was issued; of made-up ones only as many as tell that it happens."""
        if not refused.enrolment and self._noise.take(self._clock.monotonic()) > 0:
            self._noise.give_back()
            return
        entry = EnrolmentRefusedEntry(
            at=self._clock.now(), actor="system", source=source, reason=refused.reason, enrolment=refused.enrolment
        )
        await self._authority.commit((entry,))

    def _outlived(self, now: datetime) -> tuple[Delete, ...]:
        old = [code for code in self._authority.enrolments if code.expires_at + KEPT <= now]
        return tuple(Delete(EnrolmentRecord, code.key, code.rev) for code in old[:CLEARED_MAX])


def _check_proof(code: Code | None, public_key: bytes, signature: bytes) -> None:
    if code is None:
        raise _Unacceptable("malformed code")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(
            signature, enrolment_transcript(code_id=code.code_id, public_key=public_key)
        )
    except InvalidSignature:
        raise _Unacceptable("wrong proof") from None


def _enrolled(code: EnrolmentRecord, before: WorkerRecord | None, key: WorkerKey) -> WorkerRecord:
    if before is None:
        return WorkerRecord(
            name=code.worker,
            groups=code.groups,
            auth="ed25519",
            keys=(key,),
            labels={},
            single_session=False,
            disabled=False,
            created_at=key.added_at,
            expires_at=None,
        )
    try:
        keys = with_added_key(before, key)
    except TooMany:
        raise _Unacceptable("worker has as many keys as it may", enrolment=code.id) from None
    return msgspec.structs.replace(before, rev=before.rev + 1, keys=keys, groups=code.groups or before.groups)
