"""Make a repeated creation harmless: what an Idempotency-Key made is committed beside the thing itself.

Only the name of what was made is kept, never an answer, so no secret is. Showing it again is the route's. A request may
hold a value that can be guessed, so what is kept of it is a MAC: a plain hash would let whoever has a copy of the
database try guesses.
"""

from __future__ import annotations

import hmac
import re
from datetime import timedelta
from typing import Final

import msgspec

from broker.admin.once import Aside
from broker.admin.stored import Stored
from broker.api.errors import KeyReused
from broker.clock import Clock
from broker.errors import BadRequest, Conflict
from storage.records import IdempotencyRecord

KEPT: Final = timedelta(hours=24)
"""How long a key is remembered; afterwards it makes something new."""

_KEY: Final = re.compile(r"[!-~]{1,128}")


class Ticket:
    """One keyed request."""

    def __init__(self, *, fresh: IdempotencyRecord, stored: Stored) -> None:
        self._fresh = fresh
        self._stored = stored

    async def made(self) -> str | None:
        """The name of what an earlier request of this key made, or None. KeyReused: that was another request."""
        before = await self._before()
        return before.location if before is not None and self._is_live(before) else None

    async def beside(self, made: str) -> Aside:
        """What to commit beside the thing named so. Conflict: the same request was carried out meanwhile."""
        before = await self._before()
        if before is None:
            return Aside(inserts=(msgspec.structs.replace(self._fresh, location=made),))
        if self._is_live(before):
            raise Conflict("the same request under the same idempotency-key was carried out meanwhile")
        return Aside(updates=(msgspec.structs.replace(self._fresh, location=made, rev=before.rev + 1),))

    async def _before(self) -> IdempotencyRecord | None:
        before = await self._stored.get(IdempotencyRecord, self._fresh.key)
        if before is not None and self._is_live(before) and before.request_sha256 != self._fresh.request_sha256:
            raise KeyReused
        return before

    def _is_live(self, before: IdempotencyRecord) -> bool:
        return before.expires_at > self._fresh.expires_at - KEPT


class KeyDesk:
    """Finds what keys made. Keys belong to the admin who sent them. request_key: 32 bytes, the same everywhere."""

    def __init__(self, *, stored: Stored, clock: Clock, request_key: bytes) -> None:
        self._stored = stored
        self._clock = clock
        self._request_key = request_key

    def ticket(self, *, admin: str, key: str, method: str, target: str, body: bytes, status: int) -> Ticket:
        """The ticket of this request. BadRequest: not a key."""
        if _KEY.fullmatch(key) is None:
            raise BadRequest("idempotency-key: send 1 to 128 visible ASCII characters, such as a UUID")
        fresh = IdempotencyRecord(
            admin=admin,
            idempotency_key=key,
            request_sha256=_fingerprint(self._request_key, method, target, body),
            status=status,
            location="",
            expires_at=self._clock.now() + KEPT,
        )
        return Ticket(fresh=fresh, stored=self._stored)


def _fingerprint(key: bytes, method: str, target: str, body: bytes) -> bytes:
    digest = hmac.new(key, digestmod="sha256")
    for part in (method.encode(), target.encode(), body):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()
