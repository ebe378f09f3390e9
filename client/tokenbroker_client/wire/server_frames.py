"""Every frame that a broker sends. What a client sends is in `client_frames`.

The types are frozen; unknown fields are ignored; a field that is None is left out of the frame. Codes stay plain
strings here, so that a client can read a frame of a later broker. Values do not show in a `repr`.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from tokenbroker_client.wire.bounds import (
    LEASES_PER_FRAME_MAX,
    Bytes32,
    ContentType,
    HeartbeatS,
    Label,
    LeaseId,
    Pause,
    RequestId,
    Text,
    TokenName,
    TtlLeft,
    Version,
    WorkerName,
)
from tokenbroker_client.wire.codes import Encoding, Stage

Code = Annotated[str, Meta(min_length=1, max_length=64)]


class ServerStruct(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """What all broker frames share: `type` tells them apart."""


class Challenge(ServerStruct, frozen=True, tag="challenge"):
    """Ask for proof. The nonce belongs to this connection."""

    cluster: Label
    nonce: Bytes32


class Welcome(ServerStruct, frozen=True, tag="welcome"):
    """The session is open; the broker pings every `heartbeat_s` seconds."""

    session: Label
    worker: WorkerName
    cluster: Label
    instance: Label
    heartbeat_s: HeartbeatS


class Granted(ServerStruct, frozen=True, tag="granted"):
    """A lease and its value. `max_ttl_s` is how long the lease can live with all its renewals."""

    id: RequestId
    lease: LeaseId
    token: TokenName
    version: Version
    value: str
    encoding: Encoding
    content_type: ContentType
    ttl_s: TtlLeft
    max_ttl_s: TtlLeft
    expires_at: float
    stage: Stage = Stage.CURRENT

    def __repr__(self) -> str:
        """Name the lease and leave the value out."""
        return f"Granted(id={self.id!r}, lease={self.lease!r}, token={self.token!r}, version={self.version!r}, value=…)"


class LiveLease(Struct, frozen=True, kw_only=True):
    """A lease that lives, for `ttl_s` seconds from the arrival of the frame."""

    lease: LeaseId
    ttl_s: TtlLeft


class GoneLease(Struct, frozen=True, kw_only=True):
    """A lease that is over, and why (a `GoneCode`)."""

    lease: LeaseId
    code: Code


LiveLeases = Annotated[tuple[LiveLease, ...], Meta(max_length=LEASES_PER_FRAME_MAX)]
GoneLeases = Annotated[tuple[GoneLease, ...], Meta(max_length=LEASES_PER_FRAME_MAX)]
LeaseIdList = Annotated[tuple[LeaseId, ...], Meta(max_length=LEASES_PER_FRAME_MAX)]


class Renewed(ServerStruct, frozen=True, tag="renewed"):
    """Leases have new time. A reply has `id` and `gone`, even when empty; a push has neither."""

    leases: LiveLeases
    id: RequestId | None = None
    gone: GoneLeases | None = None


class Released(ServerStruct, frozen=True, tag="released"):
    """Leases are given back; `gone` lists those that were over before."""

    id: RequestId
    leases: LeaseIdList
    gone: GoneLeases


class Rotated(ServerStruct, frozen=True, tag="rotated"):
    """The token has another version; the one before works for `previous_valid_s` seconds more, where that is known."""

    lease: LeaseId
    token: TokenName
    version: Version
    value: str
    encoding: Encoding
    content_type: ContentType
    previous_valid_s: Annotated[float, Meta(ge=0)] | None = None

    def __repr__(self) -> str:
        """Name the lease and leave the value out."""
        return f"Rotated(lease={self.lease!r}, token={self.token!r}, version={self.version!r}, value=…)"


class Resumed(ServerStruct, frozen=True, tag="resumed"):
    """What became of the leases that the worker stated: they live, have another value, or are over."""

    id: RequestId
    live: LiveLeases
    rotated: Annotated[tuple[Rotated, ...], Meta(max_length=LEASES_PER_FRAME_MAX)]
    gone: GoneLeases


class Revoked(ServerStruct, frozen=True, tag="revoked"):
    """These leases are over: wipe their values and acknowledge."""

    leases: LeaseIdList
    reason: Text = ""


class Goaway(ServerStruct, frozen=True, tag="goaway"):
    """Finish, then reconnect after `reconnect_in_s` seconds."""

    reason: Text
    reconnect_in_s: Pause


class Error(ServerStruct, frozen=True, tag="error"):
    """A request failed (with its `id`), or the session did (without). `code` is an `ErrorCode`."""

    code: Code
    id: RequestId | None = None
    message: Text | None = None
    retry_after_s: Pause | None = None


ServerFrame = Challenge | Welcome | Granted | Renewed | Released | Resumed | Rotated | Revoked | Goaway | Error
