"""Put the parts of rotation together: for the loop of a broker, and for the services behind its API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker.admin.assembly import TokenServices
from broker.admin.ports import LeaseDesk
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.replicas.claim import Claim
from broker.rotation.book import RotationBook
from broker.rotation.conductor import Conductor
from broker.rotation.policies import RotationAdmin
from broker.rotation.progress import Progress
from broker.rotation.rollout_admin import RolloutAdmin
from broker.rotation.rotators import Rotators
from broker.rotation.steps import Steps
from broker.rotation.trying import DryRuns
from broker.rotation.users import Users
from broker.upstream.port import Site
from broker.vault.vault import Vault
from storage.port import Storage
from storage.records import ReplicaRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class RotationDesk:
    """What operators ask of rotation."""

    book: RotationBook
    admin: RotationAdmin
    dry_runs: DryRuns
    rotators: Rotators


def make_rotation_desk(*, site: Site, authority: Authority, tokens: TokenServices, clock: Clock) -> RotationDesk:
    """The services of rotation. site: what the configuration lets rotators do."""
    rotations = RotationBook(authority=authority, stored=tokens.stored)
    rotators = Rotators(site)
    return RotationDesk(
        book=rotations,
        admin=RotationAdmin(
            authority=authority,
            book=tokens.book,
            rotations=rotations,
            rotators=rotators,
            signing_in=tokens.signing_in,
            clock=clock,
        ),
        dry_runs=DryRuns(
            authority=authority,
            putter=tokens.putter,
            signing_in=tokens.signing_in,
            rotations=rotations,
            rotators=rotators,
            clock=clock,
        ),
        rotators=rotators,
    )


def make_conductor(
    *,
    site: Site,
    storage: Storage,
    authority: Authority,
    vault: Vault,
    tokens: TokenServices,
    leases: LeaseDesk,
    replicas: Callable[[], Sequence[ReplicaRecord]],
    claim: Claim,
    clock: Clock,
    jitter: Callable[[], float],
) -> Conductor:
    """The loop that drives rotations, with what it needs of administration."""
    rotations = RotationBook(authority=authority, stored=tokens.stored)
    progress = Progress(authority=authority, rotations=rotations, claim=claim, clock=clock)
    steps = Steps(
        tokens=tokens.admin,
        putter=tokens.putter,
        book=tokens.book,
        vault=vault,
        rotations=rotations,
        rotators=Rotators(site),
        progress=progress,
        rollouts=RolloutAdmin(
            authority=authority, book=tokens.book, stored=tokens.stored, vault=vault, clock=clock, replicas=replicas
        ),
        signing_in=tokens.signing_in,
        users=Users(leases=leases, clock=clock),
        clock=clock,
    )
    return Conductor(
        storage=storage,
        authority=authority,
        rotations=rotations,
        steps=steps,
        progress=progress,
        claim=claim,
        clock=clock,
        jitter=jitter,
    )
