"""Register workers and change them. Handing out codes so that a worker registers itself is in `enrolment`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from broker.admin.errors import Exists, InUse
from broker.admin.instants import parse_expiry
from broker.admin.once import Once, nothing_beside
from broker.admin.plan import Plan, carry_out, check_revision
from broker.admin.public_key import check_public_key, key_sha256
from broker.admin.worker_terms import WorkerChange, parse_groups, with_added_key
from broker.audit.entries import WorkerChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BadRequest, NotFound
from broker.policy.labels import parse_labels
from broker.policy.names import parse_worker_name
from storage.port import Delete
from storage.records import EnrolmentRecord, WorkerKey, WorkerRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class NewWorker:
    """A worker to register with the key that proves it."""

    name: str
    public_key: bytes
    groups: Sequence[str] = ()
    labels: Mapping[str, str] | None = None
    expires_at: datetime | None = None
    single_session: bool = False


class WorkerAdmin:
    """Workers as authority: every change is signed, audited and announced in one commit."""

    def __init__(self, *, authority: Authority, clock: Clock) -> None:
        self._authority = authority
        self._clock = clock

    def get(self, name: str) -> WorkerRecord:
        """The worker. NotFound: there is none of that name."""
        record = self._authority.workers.get((parse_worker_name(name),))
        if record is None:
            raise NotFound(f"worker {name}: there is no such worker; `worker list` shows those there are")
        return record

    async def register(self, new: NewWorker, *, actor: str, once: Once = nothing_beside) -> WorkerRecord:
        """Register a worker. Exists; KeyRefused; BadRequest: a name, group, label or expiry out of bounds."""
        now = self._clock.now()
        record = WorkerRecord(
            name=parse_worker_name(new.name),
            groups=parse_groups(new.groups),
            auth="ed25519",
            keys=(WorkerKey(public_key=check_public_key(new.public_key), added_at=now),),
            labels=parse_labels(new.labels or {}),
            single_session=new.single_session,
            disabled=False,
            created_at=now,
            expires_at=parse_expiry(new.expires_at, now),
        )

        async def decide() -> Plan[WorkerRecord]:
            if self._authority.workers.get((record.name,)) is not None:
                raise Exists(f"worker {record.name} exists already; add a key to it, or choose another name")
            entry = self._entry(record, "registered", actor, key_sha256(new.public_key))
            return Plan(result=record, entries=(entry,), inserts=(record,), aside=await once(record.name))

        return await carry_out(self._authority, decide)

    async def update(
        self,
        name: str,
        *,
        changes: Mapping[str, object],
        actor: str,
        if_match: int | None = None,
    ) -> WorkerRecord:
        """Replace some of groups, labels, expires_at (None: never), single_session. BadRequest: one out of bounds."""
        checked = {field: self._checked(field, value) for field, value in changes.items()}
        return await self._change(name, "updated", lambda _: checked, actor=actor, if_match=if_match)

    async def disable(self, name: str, *, actor: str, if_match: int | None = None) -> WorkerRecord:
        """Refuse it until it is enabled; its sessions are closed, and what they hold is revoked."""
        return await self._change(name, "disabled", lambda _: {"disabled": True}, actor=actor, if_match=if_match)

    async def enable(self, name: str, *, actor: str, if_match: int | None = None) -> WorkerRecord:
        """Let it connect again."""
        return await self._change(name, "enabled", lambda _: {"disabled": False}, actor=actor, if_match=if_match)

    async def add_key(
        self, name: str, public_key: bytes, *, actor: str, if_match: int | None = None, once: Once = nothing_beside
    ) -> WorkerRecord:
        """Let a further key prove this worker; one it has already changes nothing. TooMany: over 8 keys. KeyRefused."""
        check_public_key(public_key)
        added = WorkerKey(public_key=public_key, added_at=self._clock.now())

        def with_key(worker: WorkerRecord) -> Mapping[str, object]:
            return {"keys": with_added_key(worker, added)}

        return await self._change(
            name, "updated", with_key, actor=actor, if_match=if_match, key=key_sha256(public_key), once=once
        )

    async def remove_key(self, name: str, key: str, *, actor: str, if_match: int | None = None) -> WorkerRecord:
        """Remove the key with this SHA-256 (hex); sessions it proved are closed. InUse: it is the last. NotFound."""

        def without_key(worker: WorkerRecord) -> Mapping[str, object]:
            rest = tuple(held for held in worker.keys if key_sha256(held.public_key) != key)
            if len(rest) == len(worker.keys):
                raise NotFound(f"worker {name} has no key with that SHA-256; `worker show` lists its keys")
            if not rest:
                raise InUse(f"worker {name} has only this key; add another one first, or disable the worker")
            return {"keys": rest}

        return await self._change(name, "updated", without_key, actor=actor, if_match=if_match, key=key)

    async def remove(self, name: str, *, actor: str, if_match: int | None = None) -> None:
        """Forget the worker and every unused code that would make it again. Its grants stay, for nobody. NotFound."""

        async def decide() -> Plan[None]:
            worker = self.get(name)
            check_revision(f"worker {name}", worker, if_match)
            codes = [code for code in self._authority.enrolments if code.worker == name and code.used_at is None]
            return Plan(
                result=None,
                entries=(self._entry(worker, "removed", actor),),
                deletes=(
                    Delete(WorkerRecord, worker.key, worker.rev),
                    *(Delete(EnrolmentRecord, code.key, code.rev) for code in codes),
                ),
            )

        return await carry_out(self._authority, decide)

    async def _change(
        self,
        name: str,
        change: str,
        fields: WorkerChange,
        *,
        actor: str,
        if_match: int | None,
        key: str = "",
        once: Once = nothing_beside,
    ) -> WorkerRecord:
        async def decide() -> Plan[WorkerRecord]:
            worker = self.get(name)
            check_revision(f"worker {name}", worker, if_match)
            changed = fields(worker)
            if all(getattr(worker, field) == value for field, value in changed.items()):
                return Plan(result=worker, entries=())
            after = msgspec.structs.replace(worker, rev=worker.rev + 1, **changed)
            entry = self._entry(after, change, actor, key)
            return Plan(result=after, entries=(entry,), updates=(after,), aside=await once(name))

        return await carry_out(self._authority, decide)

    def _checked(self, field: str, value: object) -> object:
        match field, value:
            case "groups", tuple():
                return parse_groups(value)
            case "labels", dict():
                return parse_labels(value)
            case "expires_at", None:
                return None
            case "expires_at", datetime():
                return parse_expiry(value, self._clock.now())
            case "single_session", bool():
                return value
        raise BadRequest(f"worker: {field} cannot be changed so")

    def _entry(self, worker: WorkerRecord, change: str, actor: str, key: str = "") -> WorkerChanged:
        return WorkerChanged(
            at=self._clock.now(), actor=actor, worker=worker.name, change=change, key_sha256=key, groups=worker.groups
        )
