"""The kill switch: revoke leases by id, token or worker, and say who has wiped and who has not."""

from __future__ import annotations

from dataclasses import dataclass

from broker.clock import Clock
from broker.errors import BadRequest
from broker.leases.context import Context
from broker.leases.desk import Desk
from broker.leases.ending import End
from broker.leases.listing import list_leases
from storage.records import LeaseRecord
from storage.table import Key

_CHUNK = 500
_POLL_S = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Revocation:
    """revoked: every lease that this call ended. wiped: those whose worker acknowledged. missing: the others."""

    revoked: list[LeaseRecord]
    wiped: list[LeaseRecord]
    missing: list[LeaseRecord]


class Revoking:
    """Revokes leases wherever they are held."""

    def __init__(self, *, context: Context, desk: Desk, clock: Clock) -> None:
        self._context = context
        self._desk = desk
        self._clock = clock

    async def revoke(
        self,
        *,
        lease: str | None = None,
        token: str | None = None,
        worker: str | None = None,
        reason: str,
        actor: str,
        wait_s: float = 0.0,
    ) -> Revocation:
        """End every live lease that matches all selectors given; wait up to `wait_s` seconds for wipes.

        BadRequest: no selector. Unavailable: not durable in time; what was revoked before stays revoked.
        """
        if lease is None and token is None and worker is None:
            raise BadRequest("name a lease, a token or a worker to revoke")
        revoked: list[LeaseRecord] = []
        for rows in await self._matching(lease, token, worker):
            end = End(rows=rows, state="revoked", reason=reason, actor=actor)
            self._desk.submit(end)
            revoked += await end.ended
        now_known = await self._wiped(revoked, wait_s)
        wiped = [row for row in now_known if row.wiped_at is not None]
        missing = [row for row in now_known if row.wiped_at is None]
        return Revocation(revoked=revoked, wiped=wiped, missing=missing)

    async def _matching(self, lease: str | None, token: str | None, worker: str | None) -> list[list[LeaseRecord]]:
        """Live leases, in chunks."""
        if lease is not None:
            found = await self._context.read_leases([lease])
            return [list(found.values())] if found else []
        chunks: list[list[LeaseRecord]] = []
        after: Key | None = None
        while True:
            page = await list_leases(
                self._context.storage, self._clock, token=token, worker=worker, after=after, limit=_CHUNK
            )
            if page.records:
                chunks.append(page.records)
            after = page.next
            if after is None:
                return chunks

    async def _wiped(self, revoked: list[LeaseRecord], wait_s: float) -> list[LeaseRecord]:
        """The rows of these leases, as soon as all are wiped or the time is over."""
        storage, clock = self._context.storage, self._clock
        deadline = clock.monotonic() + wait_s
        waiting = {record.lease: record for record in revoked}
        rows: dict[str, LeaseRecord] = {}
        while True:
            position = await storage.position()
            found = await self._context.read_leases(list(waiting))
            rows.update(found)
            waiting = {lease: row for lease, row in found.items() if row.wiped_at is None}
            left_s = deadline - clock.monotonic()
            if not waiting or left_s <= 0:
                return [rows.get(record.lease, record) for record in revoked]
            await storage.wait(position, min(left_s, _POLL_S))
