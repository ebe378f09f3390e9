"""The root key: what the cluster's name is a commitment to, and what every key of integrity is derived from.

It is unwrapped once, at start. What is derived from it (row MACs, manifest digests, the audit signing key) is decided
by those who derive.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NoReturn

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from broker.errors import StartRefused
from broker.vault.data_keys import kms_context
from broker.vault.encoding import encode
from broker.vault.wrapping import Wrapper, openable, wrap_for_all
from kms.errors import Corrupt, KmsError, Unavailable
from kms.guard import GuardedKms
from kms.port import KEY_BYTES, Kms, Wrap, wraps_only
from storage.records import RootRecord


class Root:
    """An open root key. It shows itself only through what is derived from it."""

    __slots__ = ("_key", "cluster_id")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.cluster_id = _cluster_id(key)

    def derive(self, label: str) -> bytes:
        """32 bytes for the use that `label` names; the same for ever, and independent of those for other labels."""
        return _expand(self._key, encode("tokenbroker/root/derive/v1", label))

    def __repr__(self) -> str:
        return f"Root(cluster_id={self.cluster_id!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("root keys are not pickled")


async def create_root(*, kms: Sequence[Kms], now: datetime, call_s: float = 5.0) -> tuple[RootRecord, Root]:
    """A fresh root key, wrapped by every key of `kms` and opened again by each; its `cluster_id` is to be pinned.

    call_s: how long one KMS call may take. StartRefused: a KMS key did not wrap it; nothing was made.
    """
    key = os.urandom(KEY_BYTES)
    root = Root(key)
    return await _wrapped(key, root, kms=kms, created_at=now, call_s=call_s), root


async def rewrap_root(*, record: RootRecord, root: Root, kms: Sequence[Wrapper]) -> RootRecord:
    """The next revision of `record`, with wraps of the same root key by every key of `kms`.

    kms: not empty; their calls have deadlines. Raises as `wrap_for_all`; nothing was made then.
    """
    wraps = await wrap_for_all(root._key, wrappers=kms, context=_context(root.cluster_id))
    return RootRecord(rev=record.rev + 1, created_at=record.created_at, wraps=wraps)


async def open_root(
    *,
    record: RootRecord,
    kms: Sequence[Kms],
    expected_cluster_id: str,
    call_s: float = 5.0,
    tell: Callable[[KmsError], None] = lambda _: None,
) -> Root:
    """The root key that `expected_cluster_id`, pinned in the configuration, commits to.

    The keys of `kms` are asked in their order, each at most for call_s; those that never wrapped it, or only wrap, are
    left out. One that does not answer, refuses, or cannot open its wrap, is passed over; `tell` is told of each.
    StartRefused: no key opened it, or what opened is the root of another cluster; the message has what each said.
    """
    context = _context(expected_cluster_id)
    by_uri = {each.uri: each for each in kms if not wraps_only(each)}
    wraps = [(by_uri[wrap.kms_key], wrap) for wrap in openable(record.wraps, list(by_uri))]
    failures: list[KmsError] = []
    for each, wrap in wraps:
        try:
            guarded = GuardedKms(adapter=each, uri=each.uri, deadline_s=call_s)
            root = Root(await guarded.unwrap(Wrap(key_version=wrap.key_version, blob=wrap.blob), context))
        except KmsError as error:
            failures.append(error)
            tell(error)
            continue
        if hmac.compare_digest(root.cluster_id.encode(), expected_cluster_id.encode()):
            return root
        text = f"it opened the root key of cluster {root.cluster_id}"
        failures.append(Corrupt(text, kms_key=each.uri))
        tell(failures[-1])
    known = any(wrap.kms_key in by_uri for wrap in record.wraps)
    strangers = not known and all(isinstance(failure, Corrupt) for failure in failures)
    raise StartRefused(_why_not(record, [] if strangers else failures, expected_cluster_id))


async def _wrapped(key: bytes, root: Root, *, kms: Sequence[Kms], created_at: datetime, call_s: float) -> RootRecord:
    if not kms:
        raise StartRefused("no KMS key is configured to wrap the root key; name at least one in kms.keys")
    guarded = [GuardedKms(adapter=each, uri=each.uri, deadline_s=call_s) for each in kms]
    try:
        wraps = await wrap_for_all(key, wrappers=guarded, context=_context(root.cluster_id))
    except KmsError as error:
        refused = StartRefused(
            f"the root key was not wrapped: {error}; every key in kms.keys must wrap and unwrap, so mend or remove it"
        )
    else:
        return RootRecord(created_at=created_at, wraps=wraps)
    raise refused


def _context(cluster_id: str) -> dict[str, str]:
    return kms_context(cluster_id=cluster_id, keyring="", data_key="root", purpose="root")


def _why_not(record: RootRecord, failures: Sequence[KmsError], expected_cluster_id: str) -> str:
    if not failures:
        wrapped_by = ", ".join(wrap.kms_key for wrap in record.wraps) or "none"
        return (
            f"no key in kms.keys has wrapped the root key; name one of those that have: {wrapped_by}. A recovery key "
            "opens with its private half only (docs/howto/break-glass.md)"
        )
    said = "; ".join(str(failure) for failure in failures)
    if all(isinstance(failure, Corrupt) for failure in failures):
        return (
            f"the root key does not open as that of cluster {expected_cluster_id}: {said}. If cluster.id is not what "
            "init printed, correct it; if it is, the root row or the whole database is another's: restore it"
        )
    if any(isinstance(failure, Unavailable) for failure in failures):
        return f"no KMS key opened the root key: {said}. Start again when one answers"
    return f"the KMS refused the root key: {said}. Mend its policy or its configuration, or take it out of kms.keys"


def _cluster_id(key: bytes) -> str:
    commitment = _expand(key, encode("tokenbroker/root/cluster-id/v1"))
    return base64.b32encode(commitment).decode().rstrip("=").lower()


def _expand(key: bytes, info: bytes) -> bytes:
    return HKDFExpand(algorithm=SHA256(), length=KEY_BYTES, info=info).derive(key)
