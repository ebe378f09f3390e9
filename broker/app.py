"""Wire one broker: the only place that names concrete parts and puts them together.

Storage, KMS keys and the root key come from `foundations`; a listener is put in front in `serving`. It is one file,
because wiring is only to be trusted where all of it can be read from top to bottom.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import structlog

from broker.admin.assembly import TokenServices, make_token_services
from broker.audit.anchors import anchors_of
from broker.audit.journal import Journal
from broker.audit.lookback import look_back
from broker.audit.note import Verifier
from broker.audit.opening import open_journal
from broker.audit.settings import AuditSettings
from broker.authority.authority import Authority, load_authority
from broker.authority.pins import Pins, pinning
from broker.clock import Clock, SystemClock
from broker.feed import Feed
from broker.foundations import open_cluster, open_keys, refuse_stranding, vault_settings
from broker.housekeeping import Housekeeping
from broker.keyrings import Keyrings
from broker.kms_keys import KmsKeys
from broker.leases.context import Context
from broker.leases.desk import Desk
from broker.leases.duties import Duties
from broker.leases.heads import Heads
from broker.leases.held import Holdings
from broker.leases.issued.makers import Makers
from broker.leases.issued.making import Issuing
from broker.leases.issued.rows import Endings
from broker.leases.issued.unmaking import UNMAKING, Unmaking
from broker.leases.pools.book import Pools
from broker.leases.revoking import Revoking
from broker.leases.settings import LeaseSettings
from broker.leases.view import LeaseView
from broker.leases.wheel import Wheel
from broker.policy.book import GrantBook
from broker.reactions import Reactions
from broker.reloading import Reloading
from broker.replicas.claim import ROTATION, UPKEEP, Claim
from broker.replicas.roll import Roll, on_the_roll
from broker.rotation.assembly import make_conductor
from broker.rotation.conductor import Conductor
from broker.rotation.rollout_driver import RolloutDriver
from broker.rotation.tallies import Tallies
from broker.session.door import Door
from broker.session.sessions import Sessions
from broker.session.settings import SessionSettings
from broker.settings import Settings
from broker.tls import Certificate, bindings_of, configured_certificate, leaf_digest
from broker.upstream.port import Site
from broker.uses import Uses
from broker.vault.assembly import open_vault
from broker.vault.failures import KeyFailure
from broker.vault.root import Root
from broker.vault.vault import Vault
from storage.catalog import open_storage
from storage.port import Storage

log = structlog.get_logger()

AUDIT_SIGNING: Final = "audit-signing"
"""The label under which the audit log's signing seed is derived from the root key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Broker:
    """Every part of a running broker, for the edges that are put in front of it."""

    settings: Settings
    clock: Clock
    storage: Storage
    kms: KmsKeys
    root: Root
    roll: Roll
    claim: Claim
    rotation_claim: Claim
    journal: Journal
    authority: Authority
    pins: Pins
    vault: Vault
    tokens: TokenServices
    grants: GrantBook
    context: Context
    desk: Desk
    duties: Duties
    sessions: Sessions
    feed: Feed
    reactions: Reactions
    leases: LeaseView
    door: Door
    certificate: Certificate | None
    housekeeping: Housekeeping
    keyrings: Keyrings
    reloading: Reloading
    uses: Uses
    issuing: Issuing
    unmaking: Unmaking
    site: Site
    conductor: Conductor
    tallies: Tallies
    rollouts: RolloutDriver

    @property
    def loops(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What runs beside the listener until the broker stops."""
        return (
            self.feed.run(self.reactions.apply, self.reactions.reload),
            *((self._beating(),) if self.roll.shared else ()),
            self.duties.run(),
            self.sessions.run(),
            self.housekeeping.run(),
            self.keyrings.run(),
            self.reloading.run(),
            self.pins.run(),
            self.uses.run(),
            self.unmaking.run(),
            self.conductor.run(),
            self.tallies.run(),
            self.rollouts.run(),
            *(() if self.certificate is None else (self.certificate.watch(self.clock),)),
        )

    def _beating(self) -> Coroutine[Any, Any, None]:
        return self.roll.run(position=lambda: self.feed.position, lapsed=self.sessions.start_over)


@asynccontextmanager
async def open_broker(
    settings: Settings, *, clock: Clock | None = None, accept_audit_loss: bool = False
) -> AsyncIterator[Broker]:
    """Open and verify everything; nothing runs yet but the vault and the audit log.

    StartRefused, or what storage and KMS raise: this must not be served, and the message says what to do.
    """
    clock = clock or SystemClock()
    audit_settings = AuditSettings(anchor_file=settings.audit.anchor_file)
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(open_storage(settings.storage.url))
        keys = await stack.enter_async_context(open_keys(settings))
        root = await open_cluster(storage, keys, settings)
        roll = await stack.enter_async_context(
            on_the_roll(storage, clock=clock, instance=settings.instance, release=version("tokenbroker"))
        )
        journal = await stack.enter_async_context(
            open_journal(
                storage,
                seed=root.derive(AUDIT_SIGNING),
                cluster_id=root.cluster_id,
                instance=settings.instance,
                clock=clock,
                settings=audit_settings,
                anchors=anchors_of(audit_settings),
                accept_loss=accept_audit_loss,
            )
        )
        found = await look_back(storage, verifier=Verifier(journal.vkey))
        authority = await load_authority(
            storage=storage, writer=journal, derive=root.derive, cluster_id=root.cluster_id, clock=clock
        )
        pins = await stack.enter_async_context(
            pinning(authority=authority, journal=journal, clock=clock, found=found, accept_loss=accept_audit_loss)
        )
        vault = await stack.enter_async_context(
            open_vault(
                cluster_id=root.cluster_id,
                kms=keys,
                default_kms_keys=lambda: keys.defaults,
                data_key=lambda name: authority.data_keys.get((name,)),
                keyring=lambda name: authority.keyrings.get((name,)),
                settings=vault_settings(settings),
                clock=clock,
                jitter=_jitter,
                alarm=_alarm,
            )
        )
        await refuse_stranding(authority, keys, settings)
        keyrings = Keyrings(authority=authority, vault=vault, clock=clock, configured=settings.keyrings)
        await keyrings.settle()
        yield _assemble(
            settings=settings,
            clock=clock,
            storage=storage,
            kms=keys,
            root=root,
            roll=roll,
            journal=journal,
            authority=authority,
            pins=pins,
            vault=vault,
            keyrings=keyrings,
        )


def _assemble(
    *,
    settings: Settings,
    clock: Clock,
    storage: Storage,
    kms: KmsKeys,
    root: Root,
    roll: Roll,
    journal: Journal,
    authority: Authority,
    pins: Pins,
    vault: Vault,
    keyrings: Keyrings,
) -> Broker:
    grants = GrantBook(grants=authority.grants)
    lease_settings = LeaseSettings(
        leases_per_session_max=settings.leases.per_session,
        retention_s=settings.leases.retention.total_seconds(),
    )
    uses = Uses(storage=storage, clock=clock)
    tokens = make_token_services(storage=storage, authority=authority, vault=vault, clock=clock)
    site = _site(settings, clock)
    makers = Makers(signing_in=tokens.signing_in, site=site)
    issuing = Issuing(authority=authority, stored=tokens.stored, sealer=tokens.sealer, makers=makers, clock=clock)
    context = Context(
        instance=settings.instance,
        workers=authority.workers,
        keyrings=authority.keyrings,
        storage=storage,
        heads=Heads(storage=storage, verify=authority.verify, bound=lease_settings.heads_max),
        pools=Pools(book=authority.pools, storage=storage),
        vault=vault,
        holdings=Holdings(),
        wheel=Wheel(tick_s=lease_settings.renew_tick_s, start=clock.monotonic()),
        settings=lease_settings,
        uses=uses,
        issuing=issuing,
    )
    feed = Feed(storage=storage, clock=clock, start=authority.position, stale_s=lease_settings.feed_stale_s)
    desk = Desk(
        context=context,
        writer=journal,
        endings=Endings(
            storage=storage,
            issuers=authority.issuers,
            stores=context.heads.stores,
            verify=authority.verify,
            sign=authority.sign,
        ),
        clock=clock,
        trouble=lambda: feed.trouble or roll.skew.trouble,
    )
    claim = Claim(name=UPKEEP, storage=storage, roll=roll, clock=clock)
    rotation_claim = Claim(name=ROTATION, storage=storage, roll=roll, clock=clock)
    leases = LeaseView(context=context, revoking=Revoking(context=context, desk=desk, clock=clock), clock=clock)
    duties = Duties(context=context, desk=desk, clock=clock, upkeep=claim.ask)
    session_settings = _session_settings(settings)
    sessions = Sessions(
        writer=journal,
        workers=authority.workers,
        grants=grants,
        context=context,
        duties=duties,
        clock=clock,
        settings=session_settings,
    )
    tallies = Tallies(storage=storage, context=context, verify=authority.verify, clock=clock)
    rollouts = RolloutDriver(
        authority=authority,
        book=tokens.book,
        tokens=tokens.admin,
        storage=storage,
        claim=rotation_claim,
        roll=roll,
        clock=clock,
    )

    def rollouts_changed(tokens: Sequence[str]) -> None:
        tallies.wake(tokens)
        rollouts.wake()

    reactions = Reactions(
        authority=authority,
        grants=grants,
        context=context,
        duties=duties,
        sessions=sessions,
        rollouts_changed=rollouts_changed,
    )
    certificate = configured_certificate(chain=settings.server.tls_cert, key=settings.server.tls_key)
    door = Door(
        cluster=root.cluster_id,
        instance=settings.instance,
        workers=authority.workers,
        grants=grants,
        desk=desk,
        sessions=sessions,
        writer=journal,
        clock=clock,
        settings=session_settings,
        bindings=bindings_of(certificate),
    )
    return Broker(
        settings=settings,
        clock=clock,
        storage=storage,
        kms=kms,
        root=root,
        roll=roll,
        claim=claim,
        rotation_claim=rotation_claim,
        journal=journal,
        authority=authority,
        pins=pins,
        vault=vault,
        tokens=tokens,
        grants=grants,
        context=context,
        desk=desk,
        duties=duties,
        sessions=sessions,
        feed=feed,
        reactions=reactions,
        leases=leases,
        door=door,
        certificate=certificate,
        housekeeping=Housekeeping(
            storage=storage,
            authority=authority,
            claim=claim,
            clock=clock,
            instance=settings.instance,
            session_retention=settings.leases.retention,
            position=lambda: feed.position,
        ),
        keyrings=keyrings,
        reloading=Reloading(
            settings=settings,
            storage=storage,
            keys=kms,
            authority=authority,
            vault=vault,
            keyrings=keyrings,
            clock=clock,
        ),
        tallies=tallies,
        rollouts=rollouts,
        uses=uses,
        issuing=issuing,
        unmaking=Unmaking(
            storage=storage,
            authority=authority,
            vault=vault,
            makers=makers,
            claim=Claim(name=UNMAKING, storage=storage, roll=roll, clock=clock),
            clock=clock,
            jitter=_jitter,
        ),
        site=site,
        conductor=make_conductor(
            site=site,
            storage=storage,
            authority=authority,
            vault=vault,
            tokens=tokens,
            leases=leases,
            replicas=lambda: roll.known,
            claim=rotation_claim,
            clock=clock,
            jitter=_jitter,
        ),
    )


def _site(settings: Settings, clock: Clock) -> Site:
    """What rotators and issuers are opened with."""
    return Site(
        clock=clock,
        hosts=frozenset(settings.rotation.hosts),
        webhooks=frozenset(settings.rotation.webhooks),
        commands=frozenset(settings.rotation.commands),
    )


def _jitter() -> float:
    return secrets.randbelow(2**32) / 2**32


def _session_settings(settings: Settings) -> SessionSettings:
    return SessionSettings(
        heartbeat_s=settings.server.heartbeat.total_seconds(),
        drain_s=settings.server.drain.total_seconds(),
        sessions_per_worker_max=settings.server.sessions_per_worker,
        record_retention_s=settings.leases.retention.total_seconds(),
        bindings=tuple(leaf_digest(path) for path in settings.server.proxy_certs),
        shared_addresses=settings.server.shared_addresses,
    )


def _alarm(failure: KeyFailure) -> None:
    log.error("data_key_refused", failure=str(failure))
