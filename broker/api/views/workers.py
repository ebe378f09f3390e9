"""Bodies about workers and the codes that make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from broker.admin.public_key import key_sha256
from broker.api.paging import PageQuery
from broker.api.views.common import Answer, Instant, Labels, Name, PublicKey, Request
from broker.errors import BadRequest
from tokenbroker_client.wire import BadEncoding, b64, unb64

if TYPE_CHECKING:
    from broker.admin.enrolment import Issued
    from storage.records import EnrolmentRecord, WorkerRecord

Groups = Annotated[tuple[Name, ...], Meta(max_length=64)]


class WorkerPath(msgspec.Struct, frozen=True):
    """A worker in a path."""

    worker: Name


class WorkerKeyPath(msgspec.Struct, frozen=True):
    """A worker's key in a path, by the SHA-256 of its 32 bytes in lower-case hex."""

    worker: Name
    key_sha256: Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9a-f]{64}$"})]


class WorkerQuery(PageQuery, frozen=True, kw_only=True):
    """group: only its members."""

    group: str | None = None


class RegisterWorker(Request, frozen=True, kw_only=True):
    """A worker with its Ed25519 public key (base64url without padding)."""

    worker: Name
    public_key: PublicKey
    groups: Groups = ()
    labels: Labels = msgspec.field(default_factory=dict)
    expires_at: Instant | None = None
    single_session: bool = False


class ChangeWorker(Request, frozen=True, kw_only=True):
    """What to replace; what is left out stays. `expires_at: null` means never."""

    groups: Groups | UnsetType = UNSET
    labels: Labels | UnsetType = UNSET
    expires_at: Instant | UnsetType | None = UNSET
    single_session: bool | UnsetType = UNSET

    def changes(self) -> dict[str, object]:
        """The fields that were sent."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in given.items() if value is not UNSET}


class AddKey(Request, frozen=True, kw_only=True):
    """A further public key of a worker."""

    public_key: PublicKey


class WorkerKeyView(Answer, frozen=True, kw_only=True):
    """A key that proves a worker."""

    key_sha256: str
    public_key: str
    added_at: Instant


class Worker(Answer, frozen=True, kw_only=True):
    """A registered worker."""

    worker: str
    groups: list[str]
    auth: Literal["ed25519"]
    keys: list[WorkerKeyView]
    labels: dict[str, str]
    single_session: bool
    disabled: bool
    created_at: Instant
    expires_at: Instant | None
    revision: int


class EnrolmentQuery(PageQuery, frozen=True, kw_only=True):
    """open: only codes that can still be redeemed."""

    open: bool = False


class EnrolmentPath(msgspec.Struct, frozen=True):
    """A code in a path, by its id, which is no part of what redeems it."""

    enrolment: str


class IssueEnrolment(Request, frozen=True, kw_only=True):
    """For whom a code is. groups: what the worker gets; none: as it has them."""

    worker: Name
    groups: Groups = ()


class IssuedEnrolment(Answer, frozen=True, kw_only=True):
    """A one-time code, shown this once. worker_exists: redeeming it adds a key to the worker that is there.

    replaces_groups: and gives that worker these groups in the place of its own.
    """

    enrolment: str
    worker: str
    groups: list[str]
    code: str
    expires_at: Instant
    worker_exists: bool
    replaces_groups: bool

    def __repr__(self) -> str:
        """Keep the code out of logs."""
        return f"IssuedEnrolment(enrolment={self.enrolment!r}, code=…)"


class Enrolment(Answer, frozen=True, kw_only=True):
    """A code on record, without its secret."""

    enrolment: str
    worker: str
    groups: list[str]
    created_by: str
    created_at: Instant
    expires_at: Instant
    used_at: Instant | None


class Redeem(Request, frozen=True, kw_only=True):
    """A code, and proof that whoever redeems it holds the key: see `tokenbroker_client.transcript`."""

    code: Annotated[str, Meta(max_length=256)]
    public_key: PublicKey
    signature: Annotated[str, Meta(max_length=128, extra_json_schema={"pattern": "^[A-Za-z0-9_-]{86}$"})]

    def __repr__(self) -> str:
        """Keep the code out of logs."""
        return "Redeem(…)"


class Enrolled(Answer, frozen=True, kw_only=True):
    """Who the worker is now, and in which cluster."""

    worker: str
    cluster: str


def raw_bytes(field: str, text: str, *, length: int) -> bytes:
    """The bytes of a base64url field. BadRequest: it is none, or of another length."""
    try:
        return unb64(text, length=length)
    except BadEncoding as error:
        raise BadRequest(f"{field}: {error}; send {length} bytes as base64url without padding") from None


def worker_view(record: WorkerRecord) -> Worker:
    """A worker as answers show it."""
    return Worker(
        worker=record.name,
        groups=list(record.groups),
        auth=record.auth,
        keys=[
            WorkerKeyView(key_sha256=key_sha256(key.public_key), public_key=b64(key.public_key), added_at=key.added_at)
            for key in record.keys
        ],
        labels=record.labels,
        single_session=record.single_session,
        disabled=record.disabled,
        created_at=record.created_at,
        expires_at=record.expires_at,
        revision=record.rev,
    )


def issued_view(issued: Issued) -> IssuedEnrolment:
    """The code on its way out. The caller's copy is wiped."""
    code = issued.code.reveal().decode()
    issued.code.wipe()
    record = issued.record
    return IssuedEnrolment(
        enrolment=record.id,
        worker=record.worker,
        groups=list(record.groups),
        code=code,
        expires_at=record.expires_at,
        worker_exists=issued.before is not None,
        replaces_groups=issued.before is not None and bool(record.groups) and record.groups != issued.before.groups,
    )


def enrolment_view(record: EnrolmentRecord) -> Enrolment:
    """A code as lists show it."""
    return Enrolment(
        enrolment=record.id,
        worker=record.worker,
        groups=list(record.groups),
        created_by=record.created_by,
        created_at=record.created_at,
        expires_at=record.expires_at,
        used_at=record.used_at,
    )
