"""Make data keys, and wrap them and the root key anew when KMS keys change. Signing and committing live elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

import msgspec

from broker.errors import NotFound
from broker.vault.data_keys import data_key_commitment, kms_context
from broker.vault.failures import FailureKind, KeyFailure
from broker.vault.gate import KmsGate
from broker.vault.key_cache import KeyCache
from broker.vault.needs import Needs
from broker.vault.root import Root, rewrap_root
from broker.vault.settings import VaultSettings
from broker.vault.wrapping import wrap_for_all
from kms.errors import Corrupt, Disabled, KmsError, Unavailable
from kms.port import KEY_BYTES
from storage.records import DataKeyRecord, KeyringRecord, RootRecord


class DataKeyMint:
    """Makes data-key records. A record comes out with every wrap that was asked for, or not at all.

    kms_keys: those that a keyring has now, or the root key (None).
    """

    def __init__(
        self,
        *,
        cluster_id: str,
        gates: Mapping[str, KmsGate],
        needs: Needs,
        cache: KeyCache,
        kms_keys: Callable[[KeyringRecord | None], Sequence[str]],
        settings: VaultSettings,
    ) -> None:
        self._cluster_id = cluster_id
        self._gates = gates
        self._needs = needs
        self._cache = cache
        self._kms_keys = kms_keys
        self._settings = settings

    async def generate(self, keyring: KeyringRecord, *, data_key: str, now: datetime) -> DataKeyRecord:
        """A record for a fresh data key, wrapped by every KMS key of `keyring` and opened again by each.

        In state active, without reservations and without a MAC: the caller signs and commits it.
        NotFound: one of the KMS keys is not configured. KeyUnavailable, KeyDenied, KeyCorrupt: one did not wrap it.
        """
        key = os.urandom(KEY_BYTES)
        commitment = data_key_commitment(key, cluster_id=self._cluster_id, keyring=keyring.name, data_key=data_key)
        record = DataKeyRecord(
            id=data_key,
            keyring=keyring.name,
            state="active",
            created_at=now,
            seals_reserved=0,
            commitment=commitment,
            wraps=(),
        )
        return await self._wrapped(record, key, self._kms_keys(keyring))

    async def rewrap(self, record: DataKeyRecord, kms_keys: Sequence[str]) -> DataKeyRecord:
        """The next revision of `record`: the same data key, wrapped by exactly these KMS keys. Without a MAC.

        The data key comes from the wraps that the KMS keys of its keyring open now. Raises as `generate`.
        """
        need = self._needs.for_broker(record.id, record.keyring)
        if need.record.commitment != record.commitment:
            detail = "the record to rewrap is not that of the data key on record"
            raise need.failure(FailureKind.CORRUPT, reason="commitment", detail=detail).error()
        held = await self._cache.fetch(need, proved_within_s=self._settings.seal_proof_s)
        rewrapped = await self._wrapped(record, bytes(held.key), kms_keys)
        return msgspec.structs.replace(rewrapped, rev=record.rev + 1)

    async def rewrap_root(self, record: RootRecord, root: Root) -> RootRecord:
        """The next revision of `record`: the same root key, wrapped by the KMS keys that it has now. As `generate`."""
        gates = self._gates_of(self.kms_keys(None), "the root key")
        try:
            return await rewrap_root(record=record, root=root, kms=gates)
        except KmsError as error:
            failure = _failure("", "root", error)
        raise failure.error()

    def kms_keys(self, keyring: KeyringRecord | None) -> tuple[str, ...]:
        """The KMS keys that shall wrap the data keys of `keyring`, or the root key, in the order of asking."""
        return tuple(self._kms_keys(keyring))

    async def key_versions(self, keyring: KeyringRecord | None) -> dict[str, str]:
        """The version with which each KMS key of `kms_keys(keyring)` wraps now; those that do not are left out.

        Learnt from the wrap of a key that nobody uses: what `describe` says may be of another moment, or nothing. In a
        context as the real one has it, since a KMS may be told which contexts it serves.
        """
        versions: dict[str, str] = {}
        context = kms_context(
            cluster_id=self._cluster_id,
            keyring="" if keyring is None else keyring.name,
            data_key="root" if keyring is None else "probe",
            purpose="root" if keyring is None else "value",
        )
        for uri in self.kms_keys(keyring):
            if (gate := self._gates.get(uri)) is not None:
                with suppress(KmsError):
                    versions[uri] = (await gate.wrap(os.urandom(KEY_BYTES), context)).key_version
        return versions

    def _gates_of(self, kms_keys: Sequence[str], whose: str) -> list[KmsGate]:
        missing = [uri for uri in kms_keys if uri not in self._gates]
        if missing or not kms_keys:
            which = ", ".join(missing) or "it names none"
            raise NotFound(f"{whose} needs KMS keys that are not configured, or not open: {which}")
        return [self._gates[uri] for uri in kms_keys]

    async def _wrapped(self, record: DataKeyRecord, key: bytes, kms_keys: Sequence[str]) -> DataKeyRecord:
        gates = self._gates_of(kms_keys, f"keyring {record.keyring!r}")
        context = kms_context(cluster_id=self._cluster_id, keyring=record.keyring, data_key=record.id, purpose="value")
        try:
            wraps = await wrap_for_all(key, wrappers=gates, context=context)
        except KmsError as error:
            failure = _failure(record.keyring, record.id, error)
        else:
            return msgspec.structs.replace(record, wraps=wraps, mac=b"")
        raise failure.error()


def _failure(keyring: str, data_key: str, error: KmsError) -> KeyFailure:
    match error:
        case Unavailable():
            kind = FailureKind.UNAVAILABLE
        case Disabled():
            kind = FailureKind.DISABLED
        case Corrupt():
            kind = FailureKind.CORRUPT
        case _:
            kind = FailureKind.DENIED
    return KeyFailure(
        kind=kind,
        keyring=keyring,
        data_key=data_key,
        kms_key=error.kms_key,
        reason=error.code,
        detail=str(error),
    )
