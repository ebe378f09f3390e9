"""Which data key is needed, through which KMS keys, for whom: every input of the decision that a cached key stands for.

A cache that leaves one of them out answers for somebody else. Whether the records may be believed is checked before
they get here; asking a KMS does not live here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from broker.vault.data_keys import kms_context
from broker.vault.encoding import encode
from broker.vault.envelope import ValueContexts
from broker.vault.failures import FailureKind, KeyFailure
from broker.vault.wrapping import openable
from kms.port import Caller
from storage.records import DataKeyRecord, KeyringRecord, WrapRecord

_SLOTS_MAX = 4096


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Need:
    """One data key for one caller. Equal ids: the same key, wraps in the same order, context and caller.

    shared_id: the same without the caller. caller: None for the broker itself.
    """

    id: bytes
    shared_id: bytes
    record: DataKeyRecord
    wraps: tuple[WrapRecord, ...]
    cluster_id: str
    context: Mapping[str, str]
    value_contexts: ValueContexts
    caller: Caller | None

    def failure(self, kind: FailureKind, *, reason: str, detail: str, kms_key: str = "") -> KeyFailure:
        """What went wrong with this need."""
        return KeyFailure(
            kind=kind,
            keyring=self.record.keyring,
            data_key=self.record.id,
            kms_key=kms_key,
            reason=reason,
            detail=detail,
        )


def make_need(*, record: DataKeyRecord, kms_keys: Sequence[str], cluster_id: str, caller: Caller | None = None) -> Need:
    """The need for `record`, asking those of `kms_keys` that can have wrapped it, in their order (`openable`)."""
    wraps = openable(record.wraps, kms_keys)
    parts: list[str | bytes] = ["tokenbroker/key-cache/v1", cluster_id, record.keyring, record.id, record.commitment]
    for wrap in wraps:
        parts += (wrap.kms_key, wrap.key_version, wrap.blob)
    shared_id = hashlib.sha256(encode(*parts)).digest()
    context = kms_context(cluster_id=cluster_id, keyring=record.keyring, data_key=record.id, purpose="value")
    return Need(
        id=_id_for(shared_id, caller),
        shared_id=shared_id,
        record=record,
        wraps=wraps,
        cluster_id=cluster_id,
        context=context,
        value_contexts=ValueContexts(cluster_id=cluster_id, keyring=record.keyring, data_key=record.id),
        caller=caller,
    )


def _id_for(shared_id: bytes, caller: Caller | None) -> bytes:
    if caller is None:
        return shared_id
    return hashlib.sha256(encode(shared_id, caller.worker, *sorted(caller.groups))).digest()


def _on_behalf(need: Need, caller: Caller) -> Need:
    return Need(
        id=_id_for(need.shared_id, caller),
        shared_id=need.shared_id,
        record=need.record,
        wraps=need.wraps,
        cluster_id=need.cluster_id,
        context=need.context,
        value_contexts=need.value_contexts,
        caller=caller,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Slot:
    """What was worked out from two records, valid as long as the books still hold these very records."""

    record: DataKeyRecord
    keyring: KeyringRecord
    need: Need


class Needs:
    """Looks needs up in the verified books, which answer at once, and keeps the answers while the books keep theirs.

    kms_keys: those of a keyring, in the order of asking. opens: whether a KMS key is open here and not only wraps.
    """

    def __init__(
        self,
        *,
        cluster_id: str,
        data_key: Callable[[str], DataKeyRecord | None],
        keyring: Callable[[str], KeyringRecord | None],
        kms_keys: Callable[[KeyringRecord], Sequence[str]],
        opens: Callable[[str], bool],
    ) -> None:
        self._cluster_id = cluster_id
        self._data_key = data_key
        self._keyring = keyring
        self._kms_keys = kms_keys
        self._opens = opens
        self._slots: dict[tuple[str, str], _Slot] = {}

    def forget(self) -> None:
        """Work every need out anew: other KMS keys are configured, or open."""
        self._slots.clear()

    def for_broker(self, data_key: str, keyring: str) -> Need:
        """The need of the broker itself. Raises KeyCorrupt, KeyDenied."""
        return self._slot(data_key, keyring).need

    def for_caller(self, data_key: str, keyring: str, caller: Caller | None) -> Need:
        """The need on behalf of `caller`, who counts only where the keyring authorises at its KMS.

        CallerDenied: such a keyring, and no caller. Raises KeyCorrupt, KeyDenied.
        """
        slot = self._slot(data_key, keyring)
        if slot.keyring.authorize == "broker":
            return slot.need
        if caller is None:
            detail = "the keyring authorises each worker at its KMS, and nobody was named"
            raise slot.need.failure(FailureKind.CALLER_DENIED, reason="no_caller", detail=detail).error()
        return _on_behalf(slot.need, caller)

    def renewed(self, need: Need) -> Need | None:
        """What the same caller needs for the same data key now; None if the books give it none any more."""
        found = self._known(need.record.id, need.record.keyring) or self._look_up(need.record.id, need.record.keyring)
        if isinstance(found, KeyFailure) or found.record.commitment != need.record.commitment:
            return None
        if need.caller is None:
            return found.need
        return _on_behalf(found.need, need.caller) if found.keyring.authorize == "kms" else None

    def is_current(self, need: Need) -> bool:
        """Whether the books would still give a need with the same id for the same caller."""
        data_key, keyring = need.record.id, need.record.keyring
        found = self._known(data_key, keyring) or self._look_up(data_key, keyring)
        if isinstance(found, KeyFailure):
            return False
        per_caller = found.keyring.authorize == "kms"
        return found.need.shared_id == need.shared_id and (need.caller is None or per_caller)

    def _slot(self, data_key: str, keyring: str) -> _Slot:
        found = self._known(data_key, keyring) or self._look_up(data_key, keyring)
        if isinstance(found, KeyFailure):
            raise found.error()
        return found

    def _known(self, data_key: str, keyring: str) -> _Slot | None:
        """The slot, if it was made from the very records that the books hold."""
        slot = self._slots.get((data_key, keyring))
        if slot is not None and slot.record is self._data_key(data_key) and slot.keyring is self._keyring(keyring):
            return slot
        return None

    def _look_up(self, data_key: str, keyring: str) -> _Slot | KeyFailure:
        self._slots.pop((data_key, keyring), None)
        record, ring = self._data_key(data_key), self._keyring(keyring)
        if record is None or ring is None or record.keyring != keyring:
            detail = "a row names a data key or a keyring that is not on record"
            return _failure(FailureKind.CORRUPT, data_key, keyring, "no_such_key", detail)
        if record.state == "destroyed":
            return _failure(FailureKind.DENIED, data_key, keyring, "key_destroyed", "it was destroyed")
        usable = [uri for uri in self._kms_keys(ring) if self._opens(uri)]
        need = make_need(record=record, kms_keys=usable, cluster_id=self._cluster_id)
        if not need.wraps:
            detail = "no configured KMS key of the keyring has wrapped it; configure one that has, or rewrap it"
            return _failure(FailureKind.DENIED, data_key, keyring, "no_kms_key", detail)
        if len(self._slots) >= _SLOTS_MAX:
            self._slots.clear()
        slot = _Slot(record=record, keyring=ring, need=need)
        self._slots[(data_key, keyring)] = slot
        return slot


def _failure(kind: FailureKind, data_key: str, keyring: str, reason: str, detail: str) -> KeyFailure:
    return KeyFailure(kind=kind, keyring=keyring, data_key=data_key, kms_key="", reason=reason, detail=detail)
