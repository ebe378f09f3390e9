"""Every fact the audit log may hold, one type each: an allow-list, with no generic payload and no token value.

`at` is the broker's wall clock (RFC 3339, UTC). `actor` is "worker:NAME", "admin:NAME" or "system". Encoding is
deterministic JSON with the fields in the order written here and the type under "event" (docs/spec/audit.md).
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True, gc=False):
    """What all entries share. The garbage collector passes them over, for they are in no cycle."""

    at: datetime
    actor: str


class LogOpened(Entry, frozen=True, kw_only=True, tag="log.opened"):
    """The first entry of a log. `previous` is the origin of the log it continues, with what was found of it."""

    instance: str
    cluster: str
    previous: str = ""
    previous_size: int = 0
    previous_root: str = ""
    previous_closed: bool = True
    previous_unsigned: int = 0
    accepted_loss: int = 0


class LogClosed(Entry, frozen=True, kw_only=True, tag="log.closed"):
    """The last entry of a log that was stopped in order."""

    instance: str


class SessionOpened(Entry, frozen=True, kw_only=True, tag="session.opened"):
    """A worker proved its identity."""

    session: str
    source: str
    client: str
    key_sha256: str


class SessionClosed(Entry, frozen=True, kw_only=True, tag="session.closed"):
    """A session ended, with its WebSocket close code."""

    session: str
    close_code: int


class SessionRefused(Entry, frozen=True, kw_only=True, tag="session.refused"):
    """A handshake failed; `count` like failures of this source and reason since the last such entry."""

    source: str
    reason: str
    worker: str
    count: int = 1


class LeaseGranted(Entry, frozen=True, kw_only=True, tag="lease.granted"):
    """A plaintext was about to be sent to this worker: of the current version, or of the previous one.

    member: of a pool, the token whose version it is.
    """

    lease: str
    token: str
    version: int
    session: str
    grant: str
    ttl_s: float
    stage: str = "current"
    member: str = ""


class LeaseRefused(Entry, frozen=True, kw_only=True, tag="lease.refused"):
    """A lease was refused; `count` like refusals of this session and token since the last such entry."""

    token: str
    session: str
    code: str
    reason: str
    count: int = 1


class LeasesRenewed(Entry, frozen=True, kw_only=True, tag="lease.renewed"):
    """These leases of one session were extended after their authority was checked again."""

    session: str
    leases: tuple[str, ...]


class LeasesResumed(Entry, frozen=True, kw_only=True, tag="lease.resumed"):
    """A worker's later session took over these leases."""

    session: str
    leases: tuple[str, ...]


class LeasesEnded(Entry, frozen=True, kw_only=True, tag="lease.ended"):
    """These leases ended: state is released, expired or revoked."""

    state: str
    reason: str
    leases: tuple[str, ...]


class LeaseRotated(Entry, frozen=True, kw_only=True, tag="lease.rotated"):
    """A later version's plaintext was about to be pushed to the holder of this lease."""

    lease: str
    token: str
    version: int
    session: str


class LeaseAcknowledged(Entry, frozen=True, kw_only=True, tag="lease.acknowledged"):
    """A worker said what it did with a push: applied, failed or wiped."""

    lease: str
    status: str
    version: int = 0


class LeaseRejected(Entry, frozen=True, kw_only=True, tag="lease.rejected"):
    """A worker reported that upstream refused the value of this lease; `count` such reports since the last entry."""

    lease: str
    token: str
    version: int
    session: str
    count: int = 1


class IssuedMade(Entry, frozen=True, kw_only=True, tag="issued.made"):
    """A value was made for this lease upstream, and its plaintext was about to be sent."""

    lease: str
    token: str
    issuer: str


class IssuedEnded(Entry, frozen=True, kw_only=True, tag="issued.ended"):
    """What was made for this lease is gone upstream; with `forgotten`, an admin said so, and nobody has asked there."""

    lease: str
    token: str
    issuer: str
    attempts: int
    forgotten: bool = False


class IssuedFailed(Entry, frozen=True, kw_only=True, tag="issued.failed"):
    """A value could not be made (step `make`), or not be ended upstream at the first attempt (`end`). code: why.

    `lost`: whoever had it made was killed, or too late, before its lease was granted, and told of no other reason.
    """

    lease: str
    token: str
    issuer: str
    step: str
    code: str


class IssuerChanged(Entry, frozen=True, kw_only=True, tag="issuer.changed"):
    """How the values of a token are made. change: added, updated, removed. credentials: the tokens that are opened for
    it, sorted.
    """

    token: str
    change: str
    issuer: str
    credentials: tuple[str, ...] = ()


class TokenChanged(Entry, frozen=True, kw_only=True, tag="token.changed"):
    """A token or one of its versions changed.

    change: put, promoted, rolled_back, retired, disabled, enabled, destroyed, deleted, labelled.
    """

    token: str
    change: str
    version: int = 0


class TokenRevealed(Entry, frozen=True, kw_only=True, tag="token.revealed"):
    """A plaintext was about to be shown to an operator."""

    token: str
    version: int


class RolloutChanged(Entry, frozen=True, kw_only=True, tag="rollout.changed"):
    """A version is given to a share of the workers, parts of 10 000, before it becomes current.

    change: started, widened, promoted, done, rolled_back. reason: why it was taken back, or ended early.
    """

    token: str
    change: str
    rollout: str
    version: int
    share: int
    reason: str = ""


class RotationChanged(Entry, frozen=True, kw_only=True, tag="rotation.changed"):
    """The rotation of a token, or the policy for it.

    change: policy_set, policy_removed, paused, resumed; started, done (the step), failed (the step, with the error's
    code), finished, unchanged (the rotator made the value that was in use), abandoned, rolled_back, overtaken; tried (a
    dry run). rotation: its id. rotator, credentials: at
    policy_set, who makes the values, and the tokens that are opened for it, sorted.
    """

    token: str
    change: str
    rotation: str = ""
    step: str = ""
    version: int = 0
    error: str = ""
    rotator: str = ""
    credentials: tuple[str, ...] = ()


class WorkerChanged(Entry, frozen=True, kw_only=True, tag="worker.changed"):
    """change: registered, enrolled, disabled, enabled, removed, updated."""

    worker: str
    change: str
    key_sha256: str = ""
    groups: tuple[str, ...] = ()


class EnrolmentIssued(Entry, frozen=True, kw_only=True, tag="enrolment.issued"):
    """A one-time code was issued for a worker."""

    enrolment: str
    worker: str
    expires_at: datetime


class EnrolmentWithdrawn(Entry, frozen=True, kw_only=True, tag="enrolment.withdrawn"):
    """A one-time code was made worth nothing before anybody used it."""

    enrolment: str
    worker: str


class EnrolmentRefused(Entry, frozen=True, kw_only=True, tag="enrolment.refused"):
    """A code was refused: unknown, used, expired, or the proof was wrong."""

    source: str
    reason: str
    enrolment: str = ""


class GrantChanged(Entry, frozen=True, kw_only=True, tag="grant.changed"):
    """change: added, removed."""

    grant: str
    change: str
    subject: str
    pattern: str


class PoolChanged(Entry, frozen=True, kw_only=True, tag="pool.changed"):
    """change: set, deleted, quarantined, released. members: all of the pool, or the one that it is about.

    reason: of a quarantine: which workers' reports brought it about, or what an operator wrote.
    """

    token: str
    change: str
    members: tuple[str, ...] = ()
    leases_max: int = 0
    reason: str = ""


class KeyChanged(Entry, frozen=True, kw_only=True, tag="key.changed"):
    """change: keyring_added, configured, data_key_added, rotated, rewrapped, resealed, destroyed, retired, flushed.

    data_key: "root" is the root key. kms_key: the one whose wraps were taken out (retired). values: so many were sealed
    anew under another data key than this one (resealed).
    """

    keyring: str
    change: str
    data_key: str = ""
    kms_key: str = ""
    values: int = 0


class ConfigurationReloaded(Entry, frozen=True, kw_only=True, tag="configuration.reloaded"):
    """A running broker took over another configuration; a long one is told in several entries.

    keyrings: those whose section changed. kms_keys: the KMS keys for keyrings that name none, where they changed.
    opened, closed: KMS keys that came into use here, and that went out of it.
    """

    keyrings: tuple[str, ...] = ()
    kms_keys: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()


class AdminChanged(Entry, frozen=True, kw_only=True, tag="admin.changed"):
    """change: added, disabled, enabled, removed, credential_replaced."""

    admin: str
    change: str
    roles: tuple[str, ...] = ()


class AdminRefused(Entry, frozen=True, kw_only=True, tag="admin.refused"):
    """An admin request was refused before it ran; `count` like refusals since the last such entry."""

    source: str
    reason: str
    count: int = 1


class AuthorityPinned(Entry, frozen=True, kw_only=True, tag="authority.pinned"):
    """Where the authority tables stood: a start on an earlier state is refused.

    manifests: "TABLE REVISION ROWS DIGEST" for each table, the digest in hexadecimal. tree_size, subtrees: a state of
    this log's tree from before this entry (Base64), so that its end can be verified without its beginning. since: logs
    below this number have ended, and this entry stands for their pins. accepted: what an operator accepted at the
    start: "table NAME PINNED FOUND" (revisions), or "log NUMBER" (damaged or missing).
    """

    manifests: tuple[str, ...]
    tree_size: int
    subtrees: tuple[str, ...]
    since: int
    accepted: tuple[str, ...] = ()


class BackupTaken(Entry, frozen=True, kw_only=True, tag="backup.taken"):
    """A backup of the database was written."""

    name: str


AnyEntry = (
    LogOpened
    | LogClosed
    | SessionOpened
    | SessionClosed
    | SessionRefused
    | LeaseGranted
    | LeaseRefused
    | LeasesRenewed
    | LeasesResumed
    | LeasesEnded
    | LeaseRotated
    | LeaseAcknowledged
    | LeaseRejected
    | IssuedMade
    | IssuedEnded
    | IssuedFailed
    | IssuerChanged
    | TokenChanged
    | TokenRevealed
    | RolloutChanged
    | RotationChanged
    | WorkerChanged
    | EnrolmentIssued
    | EnrolmentWithdrawn
    | EnrolmentRefused
    | GrantChanged
    | PoolChanged
    | KeyChanged
    | ConfigurationReloaded
    | AdminChanged
    | AdminRefused
    | AuthorityPinned
    | BackupTaken
)
