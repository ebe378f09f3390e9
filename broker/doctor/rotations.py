"""Whether rotations get on: those whose last attempt failed, and those that nobody drives."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from broker.authority.authority import Authority
from broker.clock import Clock
from broker.doctor.findings import Finding, ok, warning
from storage.port import PAGE_MAX, Storage
from storage.records import RotationRecord
from storage.table import Key

NAMED_MAX: Final = 5
LATE: Final = timedelta(minutes=5)
"""A rotation that has been due for so long is driven by nobody."""


async def examine_rotations(storage: Storage, authority: Authority, clock: Clock, *, served: bool) -> list[Finding]:
    """One finding; none where no token has a policy. served: whether a broker should drive them now."""
    if not authority.rotation_policies:
        return []
    stuck: list[str] = []
    late: list[str] = []
    after: Key | None = None
    while True:
        page = await storage.select(RotationRecord, after=after, limit=PAGE_MAX)
        for row in page.records:
            authority.verify(row)
            if row.stuck_since is not None:
                stuck.append(
                    f"{row.token} at the step {row.step} since {row.stuck_since:%Y-%m-%dT%H:%M:%SZ} ({row.error})"
                )
            elif served and row.due_at is not None and clock.now() - row.due_at > LATE:
                late.append(row.token)
        after = page.next
        if after is None:
            break
    if stuck:
        return [warning("rotations", f"{len(stuck)} do not get on: {'; '.join(stuck[:NAMED_MAX])}")]
    if late:
        named = ", ".join(late[:NAMED_MAX])
        return [warning("rotations", f"{len(late)} are due and nobody drives them: {named}; see the log for why")]
    return [ok("rotations", f"{len(authority.rotation_policies)} tokens are rotated by themselves, and none is stuck")]
