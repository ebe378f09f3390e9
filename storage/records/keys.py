"""The root of integrity, keyrings, data keys, and the manifests that pin whole tables. Wrapped keys only."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

import msgspec

from storage.table import Record, Table


class WrapRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One key, wrapped by one KMS key. `kms_key` is the key URI; `blob` at most 4096 bytes."""

    kms_key: str
    key_version: str
    blob: bytes


class RootRecord(Record, frozen=True, kw_only=True):
    """The root key, wrapped. Its commitment is the cluster id that configuration pins, so it needs no MAC."""

    table: ClassVar[Table] = Table(name="root", key=("id",))

    id: Literal["root"] = "root"
    created_at: datetime
    wraps: tuple[WrapRecord, ...]


class KeyringRecord(Record, frozen=True, kw_only=True):
    """Tokens that share data keys and a KMS. Empty `kms_keys`: those of the configuration's [kms] section."""

    table: ClassVar[Table] = Table(name="keyring", key=("name",))

    name: str
    kms_keys: tuple[str, ...]
    authorize: Literal["broker", "kms"]
    active_data_key: str
    created_at: datetime
    mac: bytes = b""


class DataKeyRecord(Record, frozen=True, kw_only=True):
    """A wrapped data key. `seals_reserved` counts seals that replicas have set aside; it never falls."""

    table: ClassVar[Table] = Table(name="data_key", key=("id",), indexes={"keyring": ("keyring", "id")})

    id: str
    keyring: str
    state: Literal["active", "open", "destroyed"]
    created_at: datetime
    seals_reserved: int
    commitment: bytes
    wraps: tuple[WrapRecord, ...]
    mac: bytes = b""


class ManifestRecord(Record, frozen=True, kw_only=True):
    """How many rows an authority table holds, and a keyed digest of all of them: pins the set, not only each row."""

    table: ClassVar[Table] = Table(name="manifest", key=("kind",))

    kind: str
    count: int
    digest: bytes
    mac: bytes = b""
