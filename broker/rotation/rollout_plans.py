"""The rows that each change of a rollout writes: the token's, those of its versions, and the rollout's own. Pure.

A token's row says who gets what, so it changes in the same commit as the rollout that decided it. Reading and
committing are `rollout_admin`'s and `rollout_driver`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec

from broker.admin.once import NO_ASIDE, Aside
from broker.admin.plan import Plan
from broker.admin.stages import restaged, step_down
from broker.audit.entries import Entry, RolloutChanged, TokenChanged
from broker.rotation.rollouts import NAMED_MAX, NewRollout, Said
from storage.records import RolloutRecord, TokenRecord, VersionRecord
from storage.records.rotation import LeaseName, RolloutState
from storage.table import Record

SYSTEM: Final = "system"


def begun(
    token: TokenRecord,
    before: RolloutRecord | None,
    new: NewRollout,
    *,
    rollout: str,
    actor: str,
    now: datetime,
    aside: Aside = NO_ASIDE,
) -> Plan[RolloutRecord]:
    """The first step. before: the token's rollout before this one, whose row it takes."""
    record = RolloutRecord(
        rev=1 if before is None else before.rev + 1,
        token=token.name,
        id=rollout,
        version=new.version,
        before=token.current,
        shares=tuple(new.shares),
        wait_s=float(new.wait_s),
        bake_s=float(new.bake_s),
        abort_above=new.abort_above,
        retire=new.retire,
        deadline_s=float(new.deadline_s),
        state="running",
        step=0,
        step_at=now,
        started_by=actor,
        started_at=now,
        due_at=now,
    )
    head = _next(token, now, rollout=new.version, rollout_share=new.shares[0])
    return Plan(
        result=record,
        entries=(_entry(record, "started", actor, now),),
        inserts=(record,) if before is None else (),
        updates=(head,) if before is None else (head, record),
        announce=(_announced(record),),
        aside=aside,
    )


def widened(token: TokenRecord, rollout: RolloutRecord, said: Said, *, now: datetime) -> Plan[RolloutRecord]:
    """The next step, which more workers have part in."""
    step = rollout.step + 1
    record = _moved(rollout, step=step, step_at=now, answered_at=None, failed=said.named_failed)
    head = _next(token, now, rollout_share=rollout.shares[step])
    return _plan(record, head, entries=(_entry(record, "widened", SYSTEM, now),))


def promoted(
    token: TokenRecord, live: Iterable[VersionRecord], target: VersionRecord, rollout: RolloutRecord, *, now: datetime
) -> Plan[RolloutRecord]:
    """The version is current, and the rollout waits for who has not confirmed.

    live: the current version and the previous one, those there are.
    """
    record = _moved(rollout, state="confirming", step_at=now, answered_at=None)
    head = _next(token, now, current=rollout.version, previous=token.current, rollout=0, rollout_share=0)
    others = [other for other in live if other.version != target.version]
    changed = TokenChanged(at=now, actor=SYSTEM, token=token.name, change="promoted", version=rollout.version)
    return _plan(
        record,
        head,
        restaged(target, "current"),
        *step_down(others),
        entries=(_entry(record, "promoted", SYSTEM, now), changed),
    )


def taken_back(
    token: TokenRecord,
    target: VersionRecord,
    rollout: RolloutRecord,
    said: Said,
    *,
    reason: str,
    actor: str,
    now: datetime,
) -> Plan[RolloutRecord]:
    """Nobody gets the version any more; who has it is pushed the current one, and nobody else is touched.

    It is retired, unless it is the token's previous one: that it was before, and stays.
    """
    unanswered = (*said.named_silent, *said.named_lost)[:NAMED_MAX]
    record = _ended(rollout, "rolled_back", said, reason=reason, now=now, unanswered=unanswered)
    head = _next(token, now, rollout=0, rollout_share=0)
    stays = target.version == token.previous or target.stage in {"retired", "destroyed"}
    return _plan(
        record,
        head,
        *(() if stays else (restaged(target, "retired"),)),
        entries=(_entry(record, "rolled_back", actor, now, reason),),
    )


def noted(rollout: RolloutRecord, **fields: object) -> Plan[RolloutRecord]:
    """The rollout with what was found out, and nobody's version changes. No fields that differ: nothing to write."""
    if all(getattr(rollout, name) == value for name, value in fields.items()):
        return Plan(result=rollout, entries=())
    return _plan(_moved(rollout, **fields), entries=())


def finished(
    rollout: RolloutRecord, said: Said, unanswered: tuple[LeaseName, ...], *, reason: str, actor: str, now: datetime
) -> Plan[RolloutRecord]:
    """Nothing is waited for any more. Retiring the version before is another plan, joined to this one."""
    record = _ended(rollout, "done", said, reason=reason, now=now, unanswered=unanswered[:NAMED_MAX])
    return _plan(record, entries=(_entry(record, "done", actor, now, reason),))


def _ended(
    rollout: RolloutRecord, state: RolloutState, said: Said, *, reason: str, now: datetime, **fields: object
) -> RolloutRecord:
    return _moved(
        rollout,
        state=state,
        reason=reason,
        ended_at=now,
        due_at=None,
        failed=said.named_failed,
        holders=said.holders,
        confirmed=said.confirmed,
        **fields,
    )


def _moved(rollout: RolloutRecord, **fields: object) -> RolloutRecord:
    return msgspec.structs.replace(rollout, rev=rollout.rev + 1, **fields)


def _next(token: TokenRecord, now: datetime, **fields: object) -> TokenRecord:
    return msgspec.structs.replace(token, rev=token.rev + 1, updated_at=now, **fields)


def _plan(record: RolloutRecord, *rows: Record, entries: tuple[Entry, ...]) -> Plan[RolloutRecord]:
    return Plan(result=record, entries=entries, updates=(*rows, record), announce=(_announced(record),))


def _announced(record: RolloutRecord) -> tuple[str, tuple[str | int, ...]]:
    return (RolloutRecord.table.name, record.key)


def _entry(record: RolloutRecord, change: str, actor: str, now: datetime, reason: str = "") -> RolloutChanged:
    return RolloutChanged(
        at=now,
        actor=actor,
        token=record.token,
        change=change,
        rollout=record.id,
        version=record.version,
        share=record.shares[record.step],
        reason=reason[:1024],
    )
