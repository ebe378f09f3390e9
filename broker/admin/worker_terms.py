"""What a worker may be given: groups and keys. Whether a key is any good is in `public_key`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from broker.admin.errors import TooMany
from broker.errors import BadRequest
from broker.policy.names import parse_group_name
from storage.records import WorkerKey, WorkerRecord

GROUPS_MAX: Final = 64
KEYS_MAX: Final = 8

WorkerChange = Callable[[WorkerRecord], Mapping[str, object]]
"""Given a worker, the fields that change, with their values."""


def parse_groups(groups: Iterable[str]) -> tuple[str, ...]:
    """Accept at most 64 group names; sorted, none twice. BadRequest: more, or one that is no name."""
    checked = tuple(sorted({parse_group_name(group) for group in groups}))
    if len(checked) > GROUPS_MAX:
        raise BadRequest(f"groups: there are {len(checked)}, at most {GROUPS_MAX} are allowed; merge some")
    return checked


def with_added_key(worker: WorkerRecord, key: WorkerKey) -> tuple[WorkerKey, ...]:
    """The worker's keys and this one; as they are when it has this one. TooMany: it has 8."""
    if any(held.public_key == key.public_key for held in worker.keys):
        return worker.keys
    if len(worker.keys) >= KEYS_MAX:
        raise TooMany(f"worker {worker.name} has {KEYS_MAX} keys, which is the most; remove one first")
    return (*worker.keys, key)
