"""Find out what a recovery key opens of a database, with its private half at hand, and change nothing.

Where the private half and the database come from is the command's business.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.errors import StartRefused
from broker.vault.data_keys import is_committed, kms_context
from broker.vault.root import open_root
from broker.vault.wrapping import is_same_key
from kms.errors import KmsError
from kms.port import Kms, Wrap
from storage.port import Storage
from storage.records import AuditLogRecord, DataKeyRecord, RootRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """What opened: the root key of cluster_id ("": it did not), and so many data keys. problems: what did not."""

    cluster_id: str
    data_keys: int
    problems: tuple[str, ...]


async def open_with_paper(storage: Storage, kms: Kms, *, cluster_id: str) -> Opened:
    """Open the root key and every data key that is not destroyed with `kms`, a recovery key that has its private half.

    cluster_id: what the configuration pins; "" to take what the database says of itself: the root key then proves it.
    """
    root = await storage.get(RootRecord, ("root",))
    claimed = cluster_id or await _claimed(storage)
    if root is None or not claimed:
        return Opened(cluster_id="", data_keys=0, problems=("the database holds no cluster",))
    if not any(is_same_key(wrap.kms_key, kms.uri) for wrap in root.wraps):
        return Opened(cluster_id="", data_keys=0, problems=(f"the root key {_NOT_WRAPPED}",))
    try:
        await open_root(record=root, kms=[kms], expected_cluster_id=claimed)
    except StartRefused as error:
        return Opened(cluster_id="", data_keys=0, problems=(error.message,))
    opened = 0
    problems: list[str] = []
    after = None
    while True:
        page = await storage.select(DataKeyRecord, after=after)
        for record in page.records:
            if record.state == "destroyed":
                continue
            trouble = await _trouble(record, kms, claimed)
            if trouble:
                problems.append(f"data key {record.id} of keyring {record.keyring} {trouble}")
            else:
                opened += 1
        after = page.next
        if after is None:
            return Opened(cluster_id=claimed, data_keys=opened, problems=tuple(problems))


_NOT_WRAPPED = "is not wrapped for this recovery key: name it in the configuration, and run `tokenbroker key rewrap`"


async def _claimed(storage: Storage) -> str:
    """The cluster that the database says it is."""
    newest = await storage.select(AuditLogRecord, descending=True, limit=1)
    return newest.records[0].origin.partition("/")[0] if newest.records else ""


async def _trouble(record: DataKeyRecord, kms: Kms, cluster_id: str) -> str:
    """Why this data key does not open, "" if it does."""
    context = kms_context(cluster_id=cluster_id, keyring=record.keyring, data_key=record.id, purpose="value")
    trouble = _NOT_WRAPPED
    for each in record.wraps:
        if is_same_key(each.kms_key, kms.uri):
            try:
                key = await kms.unwrap(Wrap(key_version=each.key_version, blob=each.blob), context)
            except KmsError as error:
                trouble = f"does not open: {error}"
                continue
            if is_committed(key, record.commitment, cluster_id=cluster_id, keyring=record.keyring, data_key=record.id):
                return ""
            trouble = "opens to another key than its row commits to"
    return trouble
