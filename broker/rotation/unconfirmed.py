"""Who still holds another version than the current one, on record: connected anywhere, or away with a copy."""

from __future__ import annotations

from broker.clock import Clock
from broker.leases.listing import list_leases
from broker.leases.versions import is_confirmed
from storage.port import PAGE_MAX, Storage
from storage.records import LeaseRecord, SessionRecord
from storage.records.rotation import LeaseName
from storage.table import Key


async def unconfirmed(storage: Storage, clock: Clock, *, token: str, version: int) -> tuple[LeaseName, ...]:
    """Every live lease of the token's current version whose worker has not said that it has this one; pools' too.

    Walks the leases of the last month, so its cost follows how many there were. Raises what storage raises.
    """
    found: list[LeaseName] = []
    after: Key | None = None
    while True:
        page = await list_leases(storage, clock, token=token, after=after, limit=PAGE_MAX)
        found += await _named(
            storage,
            [
                record
                for record in page.records
                if record.stage == "current" and not (record.version == version and is_confirmed(record))
            ],
        )
        after = page.next
        if after is None:
            return tuple(found)


async def _named(storage: Storage, records: list[LeaseRecord]) -> list[LeaseName]:
    keys = list(dict.fromkeys((record.session,) for record in records))
    sessions = await storage.get_many(SessionRecord, keys) if keys else {}
    named = []
    for record in records:
        session = sessions.get((record.session,))
        connected = session is not None and session.ended_at is None
        named.append(
            LeaseName(
                lease=record.lease,
                worker=record.worker,
                why="connected" if connected else "offline",
                # Of one that is connected it moves with each renewal, and says nothing of when the copy ends.
                expires_at=None if connected else record.expires_at,
            )
        )
    return named
