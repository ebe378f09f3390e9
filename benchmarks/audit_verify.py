"""Verifying an export of the audit log, against hashing the same number of entries of the same size with SHA-256."""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path

from benchmarks.cluster import fill
from benchmarks.figures import Figure, alone, in_turns, ratio
from broker.app import open_broker
from broker.audit.encoding import encode
from broker.audit.entries import LeaseGranted
from broker.audit.export import export
from broker.audit.verify import verify_export
from broker.clock import SystemClock
from broker.ids import time_ordered_ids
from broker.settings import load_settings

_BATCH = 500


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """CPU of one entry, and so entries a second of one core."""
    count = 10_000 if quick else 100_000
    entries = _granted(count)
    out = folder / "export"
    asyncio.run(_exported(folder / "audited", entries, out))
    raw = [encode(entry) for entry in entries]

    def verified() -> float:
        started = time.process_time()
        verify_export(out)
        return time.process_time() - started

    def hashed() -> float:
        started = time.process_time()
        for entry in raw:
            hashlib.sha256(entry).digest()
        return time.process_time() - started

    ours, bare = in_turns(5, verified, hashed)
    return [
        Figure(
            name="audit verify",
            question=f"verifying {count} audit entries offline",
            value=ratio(ours, bare),
            unit="bare SHA-256",
            goal=None,
            detail=f"{count / sorted(ours)[2]:.0f} entries/s of one core: hashes, tree, signatures, form and order",
        )
    ]


def _granted(count: int) -> list[LeaseGranted]:
    now = SystemClock().now()
    return [
        LeaseGranted(
            at=now,
            actor=f"worker:w{number % 32}",
            lease=lease,
            token=f"bench/t{number % 1000}",
            version=1,
            session=lease,
            grant="bench",
            ttl_s=300.0,
        )
        for number, lease in enumerate(time_ordered_ids(now, count))
    ]


async def _exported(folder: Path, entries: list[LeaseGranted], out: Path) -> None:
    config = await fill(folder, tokens=1, workers=1)
    async with open_broker(load_settings(config)) as broker:
        for start in range(0, len(entries), _BATCH):
            await broker.journal.commit(entries[start : start + _BATCH])
        while broker.journal.unsigned:
            await broker.clock.sleep(0.1)
        await export(broker.storage, out)


if __name__ == "__main__":
    alone(figures)
