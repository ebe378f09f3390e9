"""Bodies about tokens. No answer has a value but `Revealed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from broker.admin.asked import BATCH_MAX, NewVersion
from broker.api.paging import PageQuery
from broker.api.problems import problem_of
from broker.api.views.common import Answer, Base64, Instant, Labels, Name, Request, Seconds, TokenName
from broker.errors import BadRequest, BrokerError
from tokenbroker_client.wire import BadEncoding, encode_value, unb64

if TYPE_CHECKING:
    from broker.admin.put import Put
    from broker.admin.reveal import Revealed as RevealedValue
    from storage.records import TokenRecord, VersionRecord

Number = Annotated[int, Meta(ge=1, le=2**53 - 1)]
Stage = Literal["pending", "current", "previous", "retired", "destroyed"]


class TokenPath(msgspec.Struct, frozen=True):
    """A token in a path: its slashes as they are, or as %2F."""

    token: TokenName


class VersionPath(msgspec.Struct, frozen=True):
    """A version in a path."""

    token: TokenName
    version: Number


class TokenQuery(PageQuery, frozen=True, kw_only=True):
    """prefix: only names that begin so."""

    prefix: str = ""


class _Value(Request, frozen=True, kw_only=True):
    """A value, as exactly one of `value` (UTF-8 text) and `value_b64` (base64url without padding)."""

    value: Annotated[str, Meta(max_length=65_536)] | UnsetType = UNSET
    value_b64: Base64 | UnsetType = UNSET
    stage: Literal["current", "pending"] = "current"
    content_type: str | None = None
    labels: Labels | None = None
    keyring: Name | None = None
    previous_valid_s: Seconds | None = None

    def __repr__(self) -> str:
        """Keep the value out of logs."""
        return f"{type(self).__name__}(…)"

    def new_version(self, token: str) -> NewVersion:
        """What the service stores. BadRequest: not exactly one of the two values, or no base64url."""
        return NewVersion(
            token=token,
            value=self._bytes(),
            stage=self.stage,
            content_type=self.content_type,
            labels=self.labels,
            keyring=self.keyring,
            previous_valid_s=self.previous_valid_s,
        )

    def _bytes(self) -> bytes:
        if isinstance(self.value, str) and isinstance(self.value_b64, UnsetType):
            return self.value.encode()
        if isinstance(self.value_b64, str) and isinstance(self.value, UnsetType):
            try:
                return unb64(self.value_b64)
            except BadEncoding as error:
                raise BadRequest(f"value_b64: {error}") from None
        raise BadRequest("send exactly one of value (text) and value_b64 (base64url without padding)")


class PutVersion(_Value, frozen=True, kw_only=True):
    """A value to store as a token's next version."""


class BatchItem(_Value, frozen=True, kw_only=True):
    """One of many values to store."""

    token: TokenName


class PutBatch(Request, frozen=True, kw_only=True):
    """Values to store, each on its own."""

    items: Annotated[list[BatchItem], Meta(min_length=1, max_length=BATCH_MAX)]


class ChangeToken(Request, frozen=True, kw_only=True):
    """What to replace; what is left out stays."""

    labels: Labels | None = None
    previous_valid_s: Seconds | None = None


class AskReveal(Request, frozen=True, kw_only=True):
    """Which version to show; left out: the current one."""

    version: Number | None = None


class Token(Answer, frozen=True, kw_only=True):
    """A token, without any value. current, previous: 0 while no version is. rollout: the version that is on its way to
    `rollout_share` parts of 10 000 workers, 0 for none. kind: whether its values are stored versions, are issued for
    each lease, or are those of a pool's members.
    """

    token: str
    kind: Literal["stored", "issued", "pool"]
    keyring: str
    labels: dict[str, str]
    disabled: bool
    current: int
    previous: int
    latest: int
    rollout: int
    rollout_share: int
    previous_valid_s: int
    created_at: Instant
    updated_at: Instant
    revision: int


class TokenVersion(Answer, frozen=True, kw_only=True):
    """A version of a token, without its value."""

    token: str
    version: int
    stage: Stage
    content_type: str
    keyring: str
    data_key: str
    sealed_bytes: int
    created_at: Instant
    created_by: str


class BatchResult(Answer, frozen=True, kw_only=True):
    """What became of one item: stored as `version`, or refused with `code` and `detail`."""

    token: str
    version: int | None = None
    stage: Stage | None = None
    code: str | None = None
    detail: str | None = None


class BatchDone(Answer, frozen=True, kw_only=True):
    """One result for each item, in order."""

    results: list[BatchResult]


class Revealed(Answer, frozen=True, kw_only=True):
    """A value. encoding: `utf8` as it is, or `b64` (base64url without padding)."""

    token: str
    version: int
    value: str
    encoding: Literal["utf8", "b64"]
    content_type: str

    def __repr__(self) -> str:
        """Keep the value out of logs."""
        return "Revealed(…)"


def token_view(record: TokenRecord) -> Token:
    """A token as answers show it."""
    return Token(
        token=record.name,
        kind=record.kind,
        keyring=record.keyring,
        labels=record.labels,
        disabled=record.disabled,
        current=record.current,
        previous=record.previous,
        latest=record.latest,
        rollout=record.rollout,
        rollout_share=record.rollout_share,
        previous_valid_s=record.previous_valid_s,
        created_at=record.created_at,
        updated_at=record.updated_at,
        revision=record.rev,
    )


def version_view(record: VersionRecord) -> TokenVersion:
    """A version as answers show it."""
    return TokenVersion(
        token=record.token,
        version=record.version,
        stage=record.stage,
        content_type=record.content_type,
        keyring=record.keyring,
        data_key=record.data_key,
        sealed_bytes=len(record.sealed),
        created_at=record.created_at,
        created_by=record.created_by,
    )


def batch_view(token: str, result: Put | BrokerError) -> BatchResult:
    """One item's result. A message is for the one who asked, and never holds a value."""
    if isinstance(result, BrokerError):
        problem = problem_of(result)
        return BatchResult(token=token, code=problem.code, detail=problem.detail)
    return BatchResult(token=token, version=result.version.version, stage=result.version.stage)


def revealed_view(revealed: RevealedValue) -> Revealed:
    """The value on its way out. The caller's copy is wiped."""
    value, encoding = encode_value(revealed.value.reveal())
    revealed.value.wipe()
    return Revealed(
        token=revealed.token,
        version=revealed.version,
        value=value,
        encoding="utf8" if encoding == "utf8" else "b64",
        content_type=revealed.content_type,
    )
