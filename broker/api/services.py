"""Everything the handlers may ask, handed over once by whoever wires the broker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker.admin.access import AccessReview
from broker.admin.admins import AdminAdmin
from broker.admin.assembly import TokenServices
from broker.admin.audit_desk import AuditDesk
from broker.admin.enrolment import Enrolment
from broker.admin.grants import GrantAdmin
from broker.admin.issuers import IssuerAdmin
from broker.admin.keys import KeyAdmin
from broker.admin.pool_book import PoolBook
from broker.admin.pools import PoolAdmin
from broker.admin.ports import LeaseDesk
from broker.admin.put import TokenPutter
from broker.admin.resealing import Resealer
from broker.admin.retiring import Retirer
from broker.admin.reveal import Revealer
from broker.admin.rewrapping import Rewrapper
from broker.admin.sessions import Sessions
from broker.admin.snapshots import Snapshots
from broker.admin.stored import Stored
from broker.admin.token_book import TokenBook
from broker.admin.tokens import TokenAdmin
from broker.admin.workers import WorkerAdmin
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.rotation.assembly import RotationDesk, make_rotation_desk
from broker.rotation.rollout_admin import RolloutAdmin
from broker.upstream.port import Site
from broker.uses import Uses
from broker.vault.gate import KmsHealth
from broker.vault.root import Root
from broker.vault.vault import Vault
from storage.port import Storage
from storage.records import ReplicaRecord

REQUEST_KEY: Final = "request-fingerprint"
"""The label under which the key for fingerprints of requests is derived from the root key."""

Facts = Mapping[str, str | int | float | bool]


async def no_facts() -> Facts:
    """Nothing to add to the status."""
    return {}


def no_replicas() -> Sequence[ReplicaRecord]:
    """Nobody is known to serve."""
    return ()


async def settled_at_once() -> None:
    """Nothing to wait for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """The services behind the API. kms_health: every KMS key as this replica knows it. facts: what `status` tells
    besides. replicas: who serves this database, as last seen. settled: returns when this replica acts on every change
    committed before the call. request_key: what fingerprints of requests are made with.
    """

    cluster_id: str
    request_key: bytes = field(repr=False)
    instance: str
    clock: Clock
    authority: Authority
    stored: Stored
    book: TokenBook
    putter: TokenPutter
    tokens: TokenAdmin
    rollouts: RolloutAdmin
    revealer: Revealer
    workers: WorkerAdmin
    enrolment: Enrolment
    grants: GrantAdmin
    pools: PoolAdmin
    pool_book: PoolBook
    issuers: IssuerAdmin
    admins: AdminAdmin
    keys: KeyAdmin
    rewrapper: Rewrapper
    resealer: Resealer
    retirer: Retirer
    sessions: Sessions
    leases: LeaseDesk
    access: AccessReview
    uses: Uses
    audit: AuditDesk
    snapshots: Snapshots
    kms_health: Callable[[], tuple[KmsHealth, ...]]
    facts: Callable[[], Awaitable[Facts]]
    replicas: Callable[[], Sequence[ReplicaRecord]]
    settled: Callable[[], Awaitable[None]]
    rotations: RotationDesk


def make_services(
    *,
    root: Root,
    instance: str,
    clock: Clock,
    authority: Authority,
    storage: Storage,
    vault: Vault,
    tokens: TokenServices,
    leases: LeaseDesk,
    uses: Uses,
    vkey: str,
    scratch: Path,
    reveal_allowed: bool = True,
    site: Site | None = None,
    facts: Callable[[], Awaitable[Facts]] = no_facts,
    replicas: Callable[[], Sequence[ReplicaRecord]] = no_replicas,
    settled: Callable[[], Awaitable[None]] = settled_at_once,
) -> Services:
    """Build every admin service from what they share.

    vkey: the verifier key of the audit log. scratch: a folder of the broker's own, on a disk with room for a backup;
    streams are prepared in it. site: what rotators and issuers are opened with; None: they may do nothing of their own.
    """
    stored, book, keys = tokens.stored, tokens.book, tokens.keys
    rewrapper = Rewrapper(authority=authority, stored=stored, keys=keys, vault=vault, root=root, clock=clock)
    pools = PoolAdmin(authority=authority, book=book, stored=stored, clock=clock)
    return Services(
        cluster_id=root.cluster_id,
        request_key=root.derive(REQUEST_KEY),
        instance=instance,
        clock=clock,
        authority=authority,
        stored=stored,
        book=book,
        putter=tokens.putter,
        tokens=tokens.admin,
        rollouts=RolloutAdmin(
            authority=authority, book=book, stored=stored, vault=vault, clock=clock, replicas=replicas
        ),
        revealer=Revealer(authority=authority, book=book, vault=vault, clock=clock, allowed=reveal_allowed),
        workers=WorkerAdmin(authority=authority, clock=clock),
        enrolment=Enrolment(authority=authority, clock=clock),
        grants=GrantAdmin(authority=authority, clock=clock),
        pools=pools,
        pool_book=PoolBook(pools=pools, book=book, stored=stored, leases=leases, clock=clock),
        issuers=IssuerAdmin(
            authority=authority,
            stored=stored,
            book=book,
            keys=keys,
            signing_in=tokens.signing_in,
            site=site or Site(clock=clock),
            clock=clock,
        ),
        admins=AdminAdmin(authority=authority, clock=clock),
        keys=keys,
        rewrapper=rewrapper,
        resealer=Resealer(authority=authority, stored=stored, keys=keys, sealer=tokens.sealer, clock=clock),
        retirer=Retirer(authority=authority, stored=stored, keys=keys, rewrapper=rewrapper, vault=vault, clock=clock),
        sessions=Sessions(stored=stored, leases=leases),
        leases=leases,
        access=AccessReview(authority=authority, stored=stored, uses=uses, clock=clock),
        uses=uses,
        audit=AuditDesk(storage=storage, stored=stored, authority=authority, vkey=vkey, scratch=scratch),
        snapshots=Snapshots(storage=storage, authority=authority, clock=clock, scratch=scratch),
        kms_health=vault.health,
        facts=facts,
        replicas=replicas,
        settled=settled,
        rotations=make_rotation_desk(site=site or Site(clock=clock), authority=authority, tokens=tokens, clock=clock),
    )
