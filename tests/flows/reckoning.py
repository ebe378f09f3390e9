"""The record of a cluster, held against the diary of its crew: what was acknowledged is there, and nothing else was."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from broker.audit.entries import LeaseGranted, LeaseRotated, LeasesEnded, LeasesRenewed, LeasesResumed
from broker.settings import load_settings
from storage.catalog import open_storage
from storage.records import ClaimRecord, GrantRecord, LeaseRecord, VersionRecord, WorkerRecord

DEAF_S = 3.0
"""So long a replica may still give and renew without having heard of a change: see `feed_stale_s`."""
SLACK_S = 10.0
"""For a busy machine, between a decision and the moment at which a worker notes it down."""


async def reckon(crew: Any, house_parts: Any) -> None:
    """Assert everything at once. The crew is at rest, and at least one replica serves."""
    cluster, diary = crew.cluster, crew.diary
    assert (diary.surprises, diary.lost) == ([], [])
    for name in cluster.living:
        status, report = await cluster.ask("POST", "/v1/audit/verify", {}, of=name, within_s=60)
        assert (status, report["problems"]) == (200, []), name
        assert report["ok"]
        assert report["logs"] >= len(cluster.replicas)
    async with open_storage(load_settings(cluster.config).storage.url) as storage:
        entries = await house_parts.audit_entries(storage)
        leases = {row.lease: row for row in await house_parts.every(storage, LeaseRecord)}
        await _check_admin(storage, diary, house_parts)
        claims = await house_parts.every(storage, ClaimRecord)
        assert claims
        assert {claim.instance for claim in claims} <= set(cluster.living)
    _check_leases(diary, leases, entries)
    _check_revoked(diary, leases, entries)
    for name in cluster.replicas:
        assert "Traceback" not in cluster.log(name).read_text()


async def _check_admin(storage: Any, diary: Any, house_parts: Any) -> None:
    versions = {(row.token, row.version) for row in await house_parts.every(storage, VersionRecord)}
    assert diary.puts
    assert diary.puts.keys() <= versions
    assert {key: diary.values[key] for key in diary.puts.keys() & diary.values.keys()}.items() <= diary.puts.items()
    assert diary.grants <= {row.id for row in await house_parts.every(storage, GrantRecord)}
    disabled = {row.name for row in await house_parts.every(storage, WorkerRecord) if row.disabled}
    assert diary.out.keys() == disabled


def _check_leases(diary: Any, leases: Any, entries: Any) -> None:
    granted = {entry.lease: entry.actor for entry in entries if isinstance(entry, LeaseGranted)}
    on_record = {
        (granted[entry.lease].removeprefix("worker:"), entry.lease, entry.token, entry.version)
        for entry in entries
        if isinstance(entry, LeaseGranted | LeaseRotated)
    }
    assert diary.given <= on_record
    assert {(row.worker, lease, row.token) for lease, row in leases.items()} >= {key[:3] for key in diary.given}
    assert {leases[lease].state for lease in diary.released} <= {"released"}
    # The work that one replica does for all was done by one: nothing ended twice.
    ended = Counter(lease for entry in entries if isinstance(entry, LeasesEnded) for lease in entry.leases)
    assert [lease for lease, times in ended.items() if times > 1] == []


def _check_revoked(diary: Any, leases: Any, entries: Any) -> None:
    """Who was let go was given nothing, and kept nothing alive, once all replicas knew, or knew that they did not.

    What he held when his replica died is nobody's to revoke: it runs out.
    """
    owners = {lease: row.worker for lease, row in leases.items()}
    for name, out_at in diary.out.items():
        until = out_at + timedelta(seconds=DEAF_S)
        for row in leases.values():
            if row.worker == name and row.state == "live":
                assert row.expires_at <= until + timedelta(seconds=row.ttl_s), row
        for entry in entries:
            if isinstance(entry, LeaseGranted | LeaseRotated):
                named: tuple[str, ...] = (entry.lease,)
            elif isinstance(entry, LeasesRenewed | LeasesResumed):
                named = entry.leases
            else:
                continue
            if name in {owners.get(lease) for lease in named}:
                assert entry.at <= until, entry
        late = until + timedelta(seconds=SLACK_S)
        assert [lease for worker, lease, at in diary.renewed if worker == name and at > late] == []
