"""Every frame that a client sends. What a broker answers is in `server_frames`.

The types are frozen; unknown fields are ignored; a field that is None is left out of the frame.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from tokenbroker_client.wire.bounds import (
    LEASES_PER_FRAME_MAX,
    Bytes32,
    Bytes64,
    Detail,
    Label,
    LeaseId,
    LeaseIdSaid,
    Pause,
    RequestId,
    TokenName,
    TtlAsked,
    Version,
    WaitS,
    WorkerName,
)
from tokenbroker_client.wire.codes import AckStatus, AuthMethod, ReportEvent, Stage


class ClientStruct(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """What all client frames share: `type` tells them apart."""


class Hello(ClientStruct, frozen=True, tag="hello"):
    """Open the handshake. `public_key` belongs to `ed25519`; the nonce serves once."""

    worker: WorkerName
    auth: AuthMethod
    nonce: Bytes32
    public_key: Bytes32 | None = None
    client: Label | None = None


class Prove(ClientStruct, frozen=True, tag="prove"):
    """Answer the challenge: a signature over the session transcript, or a JWT."""

    signature: Bytes64 | None = None
    jwt: Annotated[str, Meta(max_length=16 * 1024)] | None = None

    def __repr__(self) -> str:
        """Keep the credential out of logs."""
        return "Prove(…)"


class LeaseRequest(ClientStruct, frozen=True, tag="lease"):
    """Ask for one token, for at most `ttl_s` seconds (absent: the grant's default), in a stage (absent: current).

    wait_s: how long to wait in line where every place is taken (absent: not at all).
    """

    id: RequestId
    token: TokenName
    ttl_s: TtlAsked | None = None
    stage: Stage | None = None
    wait_s: WaitS | None = None


LeaseIds = Annotated[tuple[LeaseIdSaid, ...], Meta(min_length=1, max_length=LEASES_PER_FRAME_MAX)]


class Renew(ClientStruct, frozen=True, tag="renew"):
    """Ask for more time. Brokers renew on their own, so few clients ever send this."""

    id: RequestId
    leases: LeaseIds


class Release(ClientStruct, frozen=True, tag="release"):
    """Give leases back."""

    id: RequestId
    leases: LeaseIds


class HeldLease(Struct, frozen=True, kw_only=True):
    """A lease and the version of its token that the worker has in hand."""

    lease: LeaseIdSaid
    version: Version


class Resume(ClientStruct, frozen=True, tag="resume"):
    """State which leases of an earlier session of this worker are still held."""

    id: RequestId
    leases: Annotated[tuple[HeldLease, ...], Meta(min_length=1, max_length=LEASES_PER_FRAME_MAX)]


class Ack(ClientStruct, frozen=True, tag="ack"):
    """Say what became of a push: `applied` or `failed` with its version, or `wiped`."""

    lease: LeaseId
    status: AckStatus
    version: Version | None = None
    detail: Detail | None = None


class Report(ClientStruct, frozen=True, tag="report"):
    """Say how a value did upstream: of `version`, or of the one that was sent last."""

    lease: LeaseId
    event: ReportEvent
    version: Version | None = None
    retry_after_s: Pause | None = None


ClientFrame = Hello | Prove | LeaseRequest | Renew | Release | Resume | Ack | Report
