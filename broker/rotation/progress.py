"""Write down how far a rotation has come: fenced by the claim of the replica that drives, and only if it still stands
where whoever writes believes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

import msgspec

from broker.admin.plan import Plan, carry_out, joined
from broker.audit.entries import RotationChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.replicas.claim import Claim
from broker.rotation.book import RotationBook
from broker.rotation.errors import NotTheDriver
from broker.rotation.rollout_plans import SYSTEM
from storage.records import RotationRecord
from storage.records.rotation import RotationStep

After = Callable[[RotationRecord], Awaitable[Plan[None]]]
"""Given the rotation as it stands, what to commit. Asked again at each attempt."""


class Progress:
    """The commits of the one who drives."""

    def __init__(self, *, authority: Authority, rotations: RotationBook, claim: Claim, clock: Clock) -> None:
        self._authority = authority
        self._rotations = rotations
        self._claim = claim
        self._clock = clock

    async def write(self, state: RotationRecord, after: After, *also: RotationStep) -> bool:
        """Commit what `after` says, if the rotation is still the same and at the same step, or at one of `also`.

        False: it is not, and nothing was written. NotTheDriver: the claim is another replica's. Raises what
        `carry_out` and storage raise.
        """

        async def decide() -> Plan[bool]:
            claimed = await self._claim.ask()
            if claimed is None:
                raise NotTheDriver
            found = await self._rotations.state(state.token)
            if found is None or found.id != state.id or found.step not in {state.step, *also}:
                return Plan(result=False, entries=())
            return joined(True, await after(found), Plan(result=None, entries=(), expects=(claimed,)))

        return await carry_out(self._authority, decide)

    def entry(self, state: RotationRecord, change: str, *, error: str = "") -> RotationChanged:
        """What the audit log says of it: the broker did it, whoever had the rotation begin."""
        return RotationChanged(
            at=self._clock.now(),
            actor=SYSTEM,
            token=state.token,
            change=change,
            rotation=state.id,
            step=state.step,
            version=state.version,
            error=error,
        )


def at_step(
    found: RotationRecord, step: RotationStep, now: datetime, due_at: datetime | None, **fields: object
) -> RotationRecord:
    """The rotation at its next step. A paused one (never due) stays so, until it is resumed."""
    return msgspec.structs.replace(
        found,
        rev=found.rev + 1,
        step=step,
        attempt=1,
        step_at=now,
        due_at=None if found.due_at is None else due_at,
        error="",
        stuck_since=None,
        **fields,
    )
