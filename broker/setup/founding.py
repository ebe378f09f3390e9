"""Found the cluster: make its root key, store it wrapped, and pin its `cluster_id` in the configuration.

The order: the wrapped root goes to a file, then into the database, then its id into the configuration, then the file
goes. So whatever a crash leaves, the next run either finds no cluster, or knows which id is that of the one it finds.
What the database says is never believed about who it is: that would make the pin worthless.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from broker.authority.manifest import initial_manifests
from broker.clock import Clock
from broker.errors import StartRefused
from broker.private_files import read_private, replace
from broker.setup.config_file import pin_cluster
from broker.setup.layout import Layout
from broker.vault.root import create_root
from kms.port import Kms
from storage.errors import Conflict
from storage.port import Commit, Storage
from storage.records import RootRecord, WrapRecord

_BYTES_MAX = 1024 * 1024


class PendingRoot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A root on its way into the database. Wrapped, so it is no secret."""

    cluster_id: str
    wraps: tuple[WrapRecord, ...]


async def found_cluster(
    *, storage: Storage, kms: Sequence[Kms], layout: Layout, pinned: str, clock: Clock
) -> tuple[str, bool]:
    """The cluster's id, and whether this call founded it; afterwards the configuration pins it.

    StartRefused: the configuration pins a cluster that this database does not hold, or the database holds one that
    the configuration does not pin; a KMS key did not wrap; a file cannot be written. Storage's errors.
    """
    record = await storage.get(RootRecord, ("root",))
    if record is None and pinned:
        raise StartRefused(
            f"{layout.config} pins cluster {pinned}, and the database holds no cluster: check storage.url, or restore "
            "a backup. To found another cluster, remove cluster.id first"
        )
    founds = record is None
    if record is None:
        await _found(storage=storage, kms=kms, layout=layout, clock=clock)
        record = await storage.get(RootRecord, ("root",))
    cluster_id = pinned or _pending_id(layout.pending_root, record)
    pin_cluster(layout.config, cluster_id)
    layout.pending_root.unlink(missing_ok=True)
    return cluster_id, founds


async def _found(*, storage: Storage, kms: Sequence[Kms], layout: Layout, clock: Clock) -> None:
    record, root = await create_root(kms=kms, now=clock.now())
    pending = PendingRoot(cluster_id=root.cluster_id, wraps=record.wraps)
    replace(layout.pending_root, msgspec.json.encode(pending))
    try:
        await storage.commit(Commit(inserts=(record, *initial_manifests(root.derive, root.cluster_id))))
    except Conflict:
        # Somebody else founded a cluster in this database at this moment: that one stands, and is not pinned here.
        return


def _pending_id(path: Path, record: RootRecord | None) -> str:
    """The id of the root in the database, if it is the one that this data directory was about to store."""
    try:
        pending = msgspec.json.decode(read_private(path, bytes_max=_BYTES_MAX), type=PendingRoot)
    except (OSError, msgspec.MsgspecError):
        pending = None
    if record is None or pending is None or pending.wraps != record.wraps:
        raise StartRefused(
            "the database holds a cluster that this configuration does not pin: copy the [cluster] id of the "
            "configuration it was founded with, or name another storage.url to found another cluster"
        )
    return pending.cluster_id
