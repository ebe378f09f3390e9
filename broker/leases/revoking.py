"""The kill switch: revoke leases by id, token or worker, and say who has wiped and who has not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from broker.admin.ports import LeaseRef, Missing
from broker.clock import Clock
from broker.errors import BadRequest
from broker.leases.context import Context
from broker.leases.desk import Desk
from broker.leases.ending import End
from broker.leases.listing import list_leases
from broker.leases.versions import wipe_failed
from storage.port import PAGE_MAX
from storage.records import LeaseRecord, SessionRecord
from storage.table import Key

_CHUNK = 500
_POLL_S = 0.25
_SETTLED = timedelta(seconds=1)
"""What a worker said last may be written down so long after its session has ended."""
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Revocation:
    """revoked: every lease that this call ended. wiped: those whose worker acknowledged. missing: the others."""

    revoked: list[LeaseRecord]
    wiped: list[LeaseRecord]
    missing: list[Missing]


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
        return await self._awaited(revoked, wait_s)

    async def _matching(self, lease: str | None, token: str | None, worker: str | None) -> list[list[LeaseRecord]]:
        """Live leases, in chunks."""
        if lease is not None:
            found = await self._context.read_leases([lease])
            return [list(found.values())] if found else []
        chunks: list[list[LeaseRecord]] = []
        after: Key | None = None
        while True:
            page = await list_leases(
                self._context.storage,
                self._clock,
                token=token,
                worker=worker,
                after=after,
                limit=_CHUNK,
            )
            if page.records:
                chunks.append(page.records)
            after = page.next
            if after is None:
                return chunks

    async def _awaited(self, revoked: list[LeaseRecord], wait_s: float) -> Revocation:
        """Who has wiped and who has not, as soon as nobody is left to wait for or the time is over.

        Nobody waits for a worker that is offline: an acknowledgement counts only from the session that held the lease.
        """
        storage, clock = self._context.storage, self._clock
        deadline = clock.monotonic() + wait_s
        rows = {record.lease: record for record in revoked}
        while True:
            position = await storage.position()
            # Sessions before leases: what a worker said until its session ended is in the rows then.
            ended = await self._ended(row.session for row in rows.values() if row.wiped_at is None)
            rows.update(await self._context.read_leases([row.lease for row in rows.values() if row.wiped_at is None]))
            missing = [row for row in rows.values() if row.wiped_at is None]
            left_s = deadline - clock.monotonic()
            settled_at = clock.now() - _SETTLED
            if left_s <= 0 or not any(ended.get(row.session, settled_at) >= settled_at for row in missing):
                return Revocation(
                    revoked=revoked,
                    wiped=[row for row in rows.values() if row.wiped_at is not None],
                    missing=[_missing(row, ended.get(row.session)) for row in missing],
                )
            await storage.wait(position, min(left_s, _POLL_S))

    async def _ended(self, sessions: Iterable[str]) -> dict[str, datetime]:
        """When each of these sessions ended, of those that have. One that is not on record any more: long ago."""
        keys = [(session,) for session in dict.fromkeys(sessions)]
        ended: dict[str, datetime] = {}
        for start in range(0, len(keys), PAGE_MAX):
            page = keys[start : start + PAGE_MAX]
            found = await self._context.storage.get_many(SessionRecord, page)
            for key in page:
                row = found.get(key)
                if row is None:
                    ended[key[0]] = _LONG_AGO
                elif row.ended_at is not None:
                    ended[key[0]] = row.ended_at
        return ended


def _missing(row: LeaseRecord, offline_since: datetime | None) -> Missing:
    failed = wipe_failed(row)
    return Missing(
        ref=LeaseRef(lease=row.lease, worker=row.worker, token=row.token, member=row.member),
        state="connected" if offline_since is None else "offline",
        failed=failed,
        detail=row.ack_failed if failed else "",
        offline_since=None if offline_since == _LONG_AGO else offline_since,
        expires_at=row.expires_at,
    )
