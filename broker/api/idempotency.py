"""Make a repeated creation harmless: what an Idempotency-Key made is committed beside the thing itself.

Only the name of what was made is kept, never an answer, so no secret is. Showing it again is the route's.
"""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Final

from broker.admin.once import Aside
from broker.admin.stored import Stored
from broker.api.errors import KeyReused
from broker.clock import Clock
from broker.errors import BadRequest
from storage.records import IdempotencyRecord

KEPT: Final = timedelta(hours=24)
"""How long a key is remembered; afterwards it makes something new."""

_KEY: Final = re.compile(r"[!-~]{1,128}")


class Ticket:
    """One keyed request. made: the name of what an earlier one made, None if this is the first."""

    def __init__(self, *, fresh: IdempotencyRecord, before: IdempotencyRecord | None, status: int) -> None:
        live = before is not None and before.expires_at > fresh.expires_at - KEPT
        if live and before is not None and before.request_sha256 != fresh.request_sha256:
            raise KeyReused
        self.made = before.location if live and before is not None else None
        self._fresh = fresh
        self._rev = 1 if before is None else before.rev + 1
        self._status = status

    def beside(self, made: str) -> Aside:
        """What to commit beside the thing named so."""
        record = IdempotencyRecord(
            rev=self._rev,
            admin=self._fresh.admin,
            idempotency_key=self._fresh.idempotency_key,
            request_sha256=self._fresh.request_sha256,
            status=self._status,
            location=made,
            expires_at=self._fresh.expires_at,
        )
        return Aside(inserts=(record,)) if self._rev == 1 else Aside(updates=(record,))


class KeyDesk:
    """Finds what keys made. Keys belong to the admin who sent them."""

    def __init__(self, *, stored: Stored, clock: Clock) -> None:
        self._stored = stored
        self._clock = clock

    async def ticket(self, *, admin: str, key: str, method: str, target: str, body: bytes, status: int) -> Ticket:
        """The standing of this request. BadRequest: not a key. KeyReused: another request had it within 24 hours."""
        if _KEY.fullmatch(key) is None:
            raise BadRequest("idempotency-key: send 1 to 128 visible ASCII characters, such as a UUID")
        fresh = IdempotencyRecord(
            admin=admin,
            idempotency_key=key,
            request_sha256=_fingerprint(method, target, body),
            status=status,
            location="",
            expires_at=self._clock.now() + KEPT,
        )
        return Ticket(fresh=fresh, before=await self._stored.get(IdempotencyRecord, fresh.key), status=status)


def _fingerprint(method: str, target: str, body: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in (method.encode(), target.encode(), body):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()
