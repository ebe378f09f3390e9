"""Bodies about keyrings and data keys. Keys are shown by name; wrapped bytes never leave."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from broker.api.paging import PageQuery
from broker.api.views.common import Answer, Instant, Name, Request
from storage.records import DataKeyRecord, KeyringRecord


class KeyringPath(msgspec.Struct, frozen=True):
    """A keyring in a path."""

    keyring: Name


class KeyQuery(PageQuery, frozen=True, kw_only=True):
    """keyring: only its data keys."""

    keyring: str | None = None


class AddKeyring(Request, frozen=True, kw_only=True):
    """A keyring. kms_keys: key URIs, each of which the configuration names; none: those of its [kms] section."""

    keyring: Name
    kms_keys: Annotated[tuple[str, ...], Meta(max_length=8)] = ()
    authorize: Literal["broker", "kms"] = "broker"


class Keyring(Answer, frozen=True, kw_only=True):
    """A keyring."""

    keyring: str
    kms_keys: list[str]
    authorize: Literal["broker", "kms"]
    active_data_key: str
    created_at: Instant
    revision: int


class DataKey(Answer, frozen=True, kw_only=True):
    """A data key. kms_keys: which KMS keys wrapped it. seals_reserved: how many seals replicas have set aside."""

    data_key: str
    keyring: str
    state: Literal["active", "open", "destroyed"]
    created_at: Instant
    seals_reserved: int
    kms_keys: list[str]


def keyring_view(record: KeyringRecord) -> Keyring:
    """A keyring as answers show it."""
    return Keyring(
        keyring=record.name,
        kms_keys=list(record.kms_keys),
        authorize=record.authorize,
        active_data_key=record.active_data_key,
        created_at=record.created_at,
        revision=record.rev,
    )


def data_key_view(record: DataKeyRecord) -> DataKey:
    """A data key as answers show it."""
    return DataKey(
        data_key=record.id,
        keyring=record.keyring,
        state=record.state,
        created_at=record.created_at,
        seals_reserved=record.seals_reserved,
        kms_keys=[wrap.kms_key for wrap in record.wraps],
    )
