"""A broker's data folder for measuring: workers, one grant for all of them, and any number of sealed tokens.

Run as `python -m benchmarks.cluster FOLDER --tokens N --workers N --leases N` it fills a folder and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.admin.keys import DEFAULT_KEYRING
from broker.app import Broker, open_broker
from broker.clock import SystemClock
from broker.ids import time_ordered_ids
from broker.settings import load_settings
from broker.setup.initialising import initialise
from broker.setup.layout import layout_of
from storage.port import Commit
from storage.records import GrantRecord, LeaseRecord, TokenRecord, VersionRecord, WorkerKey, WorkerRecord

VALUE_BYTES = 64
_CHUNK = 2000
_LEASE_S = 3600
"""Longer than any measurement: leases of one round do not end, and cost, while another one is measured."""
T = TypeVar("T")


def worker_key(number: int) -> Ed25519PrivateKey:
    """The private key of worker `wNUMBER`: known to everybody, for measuring only."""
    return Ed25519PrivateKey.from_private_bytes((number + 1).to_bytes(32, "big"))


async def fill(
    folder: Path, *, tokens: int, workers: int, leases: int = 0, keyrings: int = 0, soft_ttl: str = "300s"
) -> Path:
    """Make a broker in `folder`; returns its configuration file. The grant lets every worker lease `bench/**`.

    keyrings: so many, with this soft TTL, between which the tokens are dealt out; 0: all are in the default one.
    """
    layout = layout_of(data_dir=folder, config=None)
    await initialise(layout, own_config=False, passphrase_file=None, new_credential=False, clock=SystemClock())
    with layout.config.open("a") as config:
        config.write('\n[leases]\nper_session = 100000\n\n[log]\nlevel = "error"\n')
        names = [f"bench-{number}" for number in range(keyrings)]
        config.writelines(f'\n[keyrings.{name}]\ncache_soft_ttl = "{soft_ttl}"\n' for name in names)
    async with open_broker(load_settings(layout.config)) as broker:
        now = broker.clock.now()
        await broker.authority.commit([], inserts=[_grant(now)])
        for part in _chunks(_worker(number, now) for number in range(workers)):
            await broker.authority.commit([], inserts=part)
        await _seal(broker, tokens, now, names or [DEFAULT_KEYRING])
        for part in _chunks(_leases(leases, tokens, now)):
            await broker.storage.commit(Commit(inserts=part))
    return layout.config


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    each = iter(items)
    while chunk := list(islice(each, _CHUNK)):
        yield chunk


def _grant(now: datetime) -> GrantRecord:
    return GrantRecord(
        id="bench",
        subject="group:bench",
        pattern="bench/**",
        ttl_s=_LEASE_S,
        max_ttl_s=86400,
        source_cidrs=(),
        windows=(),
        created_by="system",
        created_at=now,
        expires_at=None,
    )


def _worker(number: int, now: datetime) -> WorkerRecord:
    public_key = worker_key(number).public_key().public_bytes_raw()
    return WorkerRecord(
        name=f"w{number}",
        groups=("bench",),
        auth="ed25519",
        keys=(WorkerKey(public_key=public_key, added_at=now),),
        labels={},
        single_session=False,
        disabled=False,
        created_at=now,
        expires_at=None,
    )


async def _seal(broker: Broker, tokens: int, now: datetime, keyrings: Sequence[str]) -> None:
    for numbers in _chunks(range(tokens)):
        rows: list[TokenRecord | VersionRecord] = []
        for number in numbers:
            name = f"bench/t{number}"
            value = os.urandom(VALUE_BYTES // 2).hex().encode()
            keyring = keyrings[number % len(keyrings)]
            sealed, _ = await broker.tokens.sealer.seal(token=name, version=1, keyring=keyring, value=value)
            rows.append(
                VersionRecord(
                    token=name,
                    version=1,
                    stage="current",
                    content_type="text/plain",
                    keyring=sealed.keyring,
                    data_key=sealed.data_key,
                    fmt=sealed.fmt,
                    sealed=sealed.blob,
                    created_at=now,
                    created_by="system",
                )
            )
            rows.append(
                TokenRecord(
                    name=name,
                    keyring=keyring,
                    labels={},
                    disabled=False,
                    current=1,
                    latest=1,
                    previous_valid_s=120,
                    created_at=now,
                    updated_at=now,
                )
            )
        await broker.authority.commit([], inserts=rows)


def _leases(count: int, tokens: int, now: datetime) -> Iterator[LeaseRecord]:
    """Live leases of workers that are not connected, as a crash under load would leave them."""
    end = now + timedelta(seconds=_LEASE_S)
    for number, lease in enumerate(time_ordered_ids(now, count)):
        yield LeaseRecord(
            lease=lease,
            token=f"bench/t{number % tokens}",
            version=1,
            worker=f"w{number % 32}",
            session="before",
            instance="before",
            grant="bench",
            state="live",
            ttl_s=float(_LEASE_S),
            granted_at=now,
            expires_at=end,
            max_expires_at=end,
            due_at=end,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--leases", type=int, default=0)
    chosen = parser.parse_args()
    asyncio.run(fill(chosen.folder, tokens=chosen.tokens, workers=chosen.workers, leases=chosen.leases))
