"""Bodies about keyrings and data keys. Keys are shown by name; wrapped bytes never leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from broker.admin.keys import URI_CHARS_MAX
from broker.admin.resealing import RATE_PER_S, RATE_PER_S_MAX, RESEAL_MAX, Resealed
from broker.admin.rewrapping import REWRAP_MAX, Rewrapped, needs_rewrap
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


class DataKeyPath(msgspec.Struct, frozen=True):
    """A data key in a path."""

    data_key: Name


class Rewrap(Request, frozen=True, kw_only=True):
    """limit: at most so many data keys. after: those behind this one."""

    limit: Annotated[int, Meta(ge=1, le=REWRAP_MAX)] = 16
    after: Annotated[str, Meta(max_length=64)] | None = None


class RewrapFailed(Answer, frozen=True, kw_only=True):
    """A key that kept the wraps it has, and why."""

    data_key: str
    code: str
    detail: str


class RewrapDone(Answer, frozen=True, kw_only=True):
    """What one call did. remaining: data keys behind it that need it too. next: the `after` of the next call, if so."""

    rewrapped: list[str]
    failed: list[RewrapFailed]
    remaining: int
    next: str | None


class ResealPlace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version under a data key: how far a walk has come."""

    data_key: Annotated[str, Meta(max_length=64)]
    token: Annotated[str, Meta(max_length=512)]
    version: int


class Reseal(Request, frozen=True, kw_only=True):
    """limit: at most so many versions. rate_per_s: no more than so many a second, calls before this one included."""

    limit: Annotated[int, Meta(ge=1, le=RESEAL_MAX)] = 100
    rate_per_s: Annotated[int, Meta(ge=1, le=RATE_PER_S_MAX)] = RATE_PER_S
    after: ResealPlace | None = None


class ResealFailed(Answer, frozen=True, kw_only=True):
    """A version that stays sealed as it is, and why."""

    token: str
    version: int
    data_key: str
    code: str
    detail: str


class ResealDone(Answer, frozen=True, kw_only=True):
    """What one call did. remaining: versions of the keyring under former data keys, those that failed included.

    counted_all: whether it is this number, or at least this. next: the `after` of the next call; null at the end.
    """

    values: int
    failed: list[ResealFailed]
    remaining: int
    counted_all: bool
    next: ResealPlace | None


class RetireKmsKey(Request, frozen=True, kw_only=True):
    """A KMS key, as key URI, that the configuration names no more."""

    kms_key: Annotated[str, Meta(min_length=1, max_length=URI_CHARS_MAX)]


class KmsKeyRetired(Answer, frozen=True, kw_only=True):
    """data_keys: from how many its wraps were taken out. root: whether from the root key too."""

    kms_key: str
    data_keys: int
    root: bool


class Keyring(Answer, frozen=True, kw_only=True):
    """A keyring."""

    keyring: str
    kms_keys: list[str]
    authorize: Literal["broker", "kms"]
    active_data_key: str
    created_at: Instant
    revision: int


class KeyWrap(Answer, frozen=True, kw_only=True):
    """A KMS key that wraps a data key, and the version that did; empty where the KMS does not say."""

    kms_key: str
    key_version: str


class DataKey(Answer, frozen=True, kw_only=True):
    """A data key. wraps: by which KMS keys. needs_rewrap: whether these are not those that the configuration names.

    seals_reserved: how many seals replicas have set aside.
    """

    data_key: str
    keyring: str
    state: Literal["active", "open", "destroyed"]
    created_at: Instant
    seals_reserved: int
    wraps: list[KeyWrap]
    needs_rewrap: bool
    revision: int


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


def data_key_view(record: DataKeyRecord, kms_keys: Sequence[str]) -> DataKey:
    """A data key as answers show it. kms_keys: those that shall wrap it."""
    return DataKey(
        data_key=record.id,
        keyring=record.keyring,
        state=record.state,
        created_at=record.created_at,
        seals_reserved=record.seals_reserved,
        wraps=[KeyWrap(kms_key=wrap.kms_key, key_version=wrap.key_version) for wrap in record.wraps],
        needs_rewrap=record.state != "destroyed" and needs_rewrap(record.wraps, kms_keys),
        revision=record.rev,
    )


def rewrap_view(done: Rewrapped) -> RewrapDone:
    """What a rewrap did, as answers show it."""
    return RewrapDone(
        rewrapped=list(done.done),
        failed=[
            RewrapFailed(data_key=each.data_key, code=each.error.code, detail=each.error.message)
            for each in done.failed
        ],
        remaining=done.remaining,
        next=done.next,
    )


def reseal_view(done: Resealed) -> ResealDone:
    """What a reseal did, as answers show it."""
    return ResealDone(
        values=done.values,
        failed=[
            ResealFailed(
                token=each.place.token,
                version=each.place.version,
                data_key=each.place.data_key,
                code=each.error.code,
                detail=each.error.message,
            )
            for each in done.failed
        ],
        remaining=done.remaining,
        counted_all=done.counted_all,
        next=None if done.next is None else ResealPlace(**done.next._asdict()),
    )
