"""The bounds of sessions, as one value that is fixed at start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionSettings:
    """Bounds and their meanings.

    bindings: SHA-256 digests of further leaf certificates that clients may see, such as a TLS-terminating proxy's.
    handshakes_max: connections that may be unproved at once, handshakes_per_source_max: those of one source; beyond:
    503. failures_max: failed handshakes of one source within failures_s; beyond: close 4429 before any cryptography. A
    source is an IPv4 address or an IPv6 network of 64 bits. Where bindings name a proxy, or shared_addresses says so,
    one address stands for many workers, so nothing is counted by source. sessions_per_worker_max: beyond: close 4429.
    backlog_bytes: unread answers at which reading and pushes of values pause; a worker that leaves them unread for
    backlog_s is cut off, one with backlog_bytes_max at once; from backlog_granted_bytes on, asking for leases is
    rate_limited. record_retention_s: how long ended sessions stay on record.
    """

    heartbeat_s: float = 20.0
    handshake_s: float = 5.0
    handshakes_max: int = 2048
    handshakes_per_source_max: int = 512
    failures_max: int = 30
    failures_s: float = 60.0
    sessions_per_worker_max: int = 64
    backlog_bytes: int = 256 * 1024
    backlog_granted_bytes: int = 1024 * 1024
    backlog_s: float = 5.0
    backlog_bytes_max: int = 32 * 1024 * 1024
    malformed_max: int = 3
    drain_s: float = 10.0
    drain_slots_per_s: float = 500.0
    record_retention_s: float = 30 * 24 * 3600.0
    bindings: tuple[bytes, ...] = ()
    shared_addresses: bool = False

    @property
    def by_source(self) -> bool:
        """Whether an address tells peers apart."""
        return not (self.bindings or self.shared_addresses)
