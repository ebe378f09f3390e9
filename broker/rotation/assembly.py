"""Put the parts of rotation together: for the loop of a broker, and for the services behind its API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker.admin.keys import KeyAdmin
from broker.admin.ports import LeaseDesk
from broker.admin.put import TokenPutter
from broker.admin.sealing import Sealer
from broker.admin.signing_in import SigningIn
from broker.admin.stored import Stored
from broker.admin.token_book import TokenBook
from broker.admin.tokens import TokenAdmin
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


def make_rotation_desk(
    *,
    site: Site,
    authority: Authority,
    stored: Stored,
    book: TokenBook,
    putter: TokenPutter,
    vault: Vault,
    clock: Clock,
) -> RotationDesk:
    """The services of rotation. site: what the configuration lets rotators do."""
    rotations = RotationBook(authority=authority, stored=stored)
    rotators = Rotators(site)
    signing_in = SigningIn(authority=authority, book=book, vault=vault)
    return RotationDesk(
        book=rotations,
        admin=RotationAdmin(
            authority=authority,
            book=book,
            rotations=rotations,
            rotators=rotators,
            signing_in=signing_in,
            clock=clock,
        ),
        dry_runs=DryRuns(
            authority=authority,
            putter=putter,
            signing_in=signing_in,
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
    leases: LeaseDesk,
    replicas: Callable[[], Sequence[ReplicaRecord]],
    claim: Claim,
    clock: Clock,
    jitter: Callable[[], float],
) -> Conductor:
    """The loop that drives rotations, with what it needs of administration."""
    stored = Stored(storage=storage)
    book = TokenBook(stored=stored, authority=authority)
    keys = KeyAdmin(authority=authority, vault=vault, clock=clock)
    sealer = Sealer(authority=authority, vault=vault, keys=keys, clock=clock)
    rotations = RotationBook(authority=authority, stored=stored)
    progress = Progress(authority=authority, rotations=rotations, claim=claim, clock=clock)
    steps = Steps(
        tokens=TokenAdmin(authority=authority, book=book, vault=vault, clock=clock),
        putter=TokenPutter(authority=authority, book=book, sealer=sealer, clock=clock),
        book=book,
        vault=vault,
        rotations=rotations,
        rotators=Rotators(site),
        progress=progress,
        rollouts=RolloutAdmin(
            authority=authority, book=book, stored=stored, vault=vault, clock=clock, replicas=replicas
        ),
        signing_in=SigningIn(authority=authority, book=book, vault=vault),
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
