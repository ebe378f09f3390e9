"""Wire one broker: the only place that names concrete parts and puts them together.

`open_broker` builds everything that decides and remembers; `serve` puts it behind a listener and lets it down in order:
refuse what is new, ask workers to go, drain, cancel, close the audit log, then KMS and storage.
"""

from __future__ import annotations

import asyncio
import gc
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiohttp import web

from broker.audit.anchors import anchors_of
from broker.audit.journal import Journal
from broker.audit.lookback import look_back
from broker.audit.note import Verifier
from broker.audit.opening import open_journal
from broker.audit.settings import AuditSettings
from broker.authority.authority import Authority, load_authority
from broker.authority.pins import Pins, pinning
from broker.clock import Clock, SystemClock
from broker.errors import StartRefused
from broker.feed import Feed
from broker.front import make_app
from broker.housekeeping import Housekeeping
from broker.keyrings import Keyrings
from broker.leases.context import Context
from broker.leases.desk import Desk
from broker.leases.duties import Duties
from broker.leases.heads import Heads
from broker.leases.held import Holdings
from broker.leases.revoking import Revoking
from broker.leases.settings import LeaseSettings
from broker.leases.view import LeaseView
from broker.leases.wheel import Wheel
from broker.policy.book import GrantBook
from broker.reactions import Reactions
from broker.session.door import Door
from broker.session.sessions import Sessions
from broker.session.settings import SessionSettings
from broker.settings import Settings
from broker.tls import Certificate, is_loopback, leaf_digest
from broker.vault.assembly import open_vault
from broker.vault.failures import KeyFailure
from broker.vault.root import Root, open_root
from broker.vault.settings import VaultSettings
from broker.vault.vault import Vault
from kms.catalog import open_kms
from kms.errors import KmsError
from kms.port import Kms
from storage.catalog import open_storage
from storage.errors import StorageError
from storage.port import Storage
from storage.records import RootRecord

log = structlog.get_logger()

AUDIT_SIGNING: Final = "audit-signing"
"""The label under which the audit log's signing seed is derived from the root key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Broker:
    """Every part of a running broker, for the edges that are put in front of it."""

    settings: Settings
    clock: Clock
    storage: Storage
    kms: dict[str, Kms]
    root: Root
    journal: Journal
    authority: Authority
    pins: Pins
    vault: Vault
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

    @property
    def loops(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What runs beside the listener until the broker stops."""
        return (
            self.feed.run(self.reactions.apply),
            self.duties.run(),
            self.sessions.run(),
            self.housekeeping.run(),
            self.keyrings.run(),
            self.pins.run(),
            *(() if self.certificate is None else (self.certificate.watch(self.clock),)),
        )


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
        keys = await _open_keys(stack, settings)
        root = await _open_root(storage, keys, settings)
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
                default_kms_keys=settings.kms.keys,
                data_key=lambda name: authority.data_keys.get((name,)),
                keyring=lambda name: authority.keyrings.get((name,)),
                settings=VaultSettings(
                    soft_ttl_s=settings.kms.cache_soft_ttl.total_seconds(),
                    hard_ttl_s=settings.kms.cache_hard_ttl.total_seconds(),
                    rate_per_s=settings.kms.rate_per_s,
                    active_days=settings.kms.active_days,
                ),
                clock=clock,
                jitter=lambda: secrets.randbelow(2**32) / 2**32,
                alarm=_alarm,
            )
        )
        keyrings = Keyrings(authority=authority, vault=vault, clock=clock, configured=settings.keyrings)
        await keyrings.settle()
        yield _assemble(
            settings=settings,
            clock=clock,
            storage=storage,
            kms=keys,
            root=root,
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
    kms: dict[str, Kms],
    root: Root,
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
    context = Context(
        instance=settings.instance,
        workers=authority.workers,
        keyrings=authority.keyrings,
        storage=storage,
        heads=Heads(storage=storage, verify=authority.verify, bound=lease_settings.heads_max),
        vault=vault,
        holdings=Holdings(),
        wheel=Wheel(tick_s=lease_settings.renew_tick_s, start=clock.monotonic()),
        settings=lease_settings,
    )
    feed = Feed(storage=storage, clock=clock, start=authority.position, stale_s=lease_settings.feed_stale_s)
    desk = Desk(context=context, writer=journal, clock=clock, trouble=lambda: feed.trouble)
    duties = Duties(context=context, desk=desk, clock=clock)
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
    reactions = Reactions(authority=authority, grants=grants, context=context, duties=duties, sessions=sessions)
    certificate = _certificate(settings)
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
        bindings=_no_bindings if certificate is None else certificate.bindings,
    )
    return Broker(
        settings=settings,
        clock=clock,
        storage=storage,
        kms=kms,
        root=root,
        journal=journal,
        authority=authority,
        pins=pins,
        vault=vault,
        grants=grants,
        context=context,
        desk=desk,
        duties=duties,
        sessions=sessions,
        feed=feed,
        reactions=reactions,
        leases=LeaseView(storage=storage, revoking=Revoking(context=context, desk=desk, clock=clock), clock=clock),
        door=door,
        certificate=certificate,
        housekeeping=Housekeeping(
            storage=storage,
            authority=authority,
            clock=clock,
            instance=settings.instance,
            session_retention=settings.leases.retention,
        ),
        keyrings=keyrings,
    )


async def serve(
    settings: Settings,
    *,
    stop: asyncio.Event,
    ready: Callable[[str], None],
    accept_audit_loss: bool = False,
    clock: Clock | None = None,
) -> None:
    """Serve until `stop` is set, then let everything down in order. `ready` is told the base URL once it listens.

    Raises what `open_broker` raises, and StartRefused when it cannot listen where it should.
    """
    host, port = settings.address
    if not is_loopback(host) and settings.server.tls_cert is None and not settings.server.insecure_plaintext:
        raise StartRefused(
            f"server.listen is {settings.server.listen}, which is not loopback: set server.tls_cert and "
            "server.tls_key, or server.insecure_plaintext = true behind a TLS proxy"
        )
    async with (
        open_broker(settings, clock=clock, accept_audit_loss=accept_audit_loss) as broker,
        asyncio.TaskGroup() as tasks,
    ):
        loops = [tasks.create_task(loop) for loop in (broker.desk.run(), *broker.loops)]
        _spare_the_collector()
        try:
            async with _listening(broker, host, port) as url:
                ready(url)
                await stop.wait()
                await broker.sessions.drain()
            await broker.desk.drained()
        finally:
            for task in loops:
                task.cancel()


def _spare_the_collector() -> None:
    """Leave what start-up made out of garbage collection, and look for cycles less often.

    Each lease makes a handful of objects that live for minutes and form no cycles; with the interpreter's defaults
    they are walked again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@asynccontextmanager
async def _listening(broker: Broker, host: str, port: int) -> AsyncIterator[str]:
    app = make_app(broker)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, handler_cancellation=False)
    await runner.setup()
    try:
        tls = None if broker.certificate is None else broker.certificate.outer
        site = web.TCPSite(runner, host, port, ssl_context=tls, backlog=4096, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            raise StartRefused(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
        bound = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        yield f"{'http' if tls is None else 'https'}://{shown}:{bound}"
    finally:
        await runner.cleanup()


async def _open_keys(stack: AsyncExitStack, settings: Settings) -> dict[str, Kms]:
    """Every KMS key that the configuration names, once."""
    uris = [*settings.kms.keys, *(uri for ring in settings.keyrings.values() for uri in ring.kms_keys)]
    keys: dict[str, Kms] = {}
    for uri in dict.fromkeys(uris):
        try:
            keys[uri] = await stack.enter_async_context(open_kms(uri))
            description = await keys[uri].describe()
        except KmsError as error:
            raise StartRefused(str(error)) from None
        for warning in description.warnings:
            log.warning("kms", kms_key=uri, warning=warning)
    return keys


async def _open_root(storage: Storage, keys: dict[str, Kms], settings: Settings) -> Root:
    if not settings.cluster.id:
        raise StartRefused("cluster.id is not set; run `tokenbroker init`, which writes it into the configuration")
    try:
        record = await storage.get(RootRecord, ("root",))
    except StorageError as error:
        raise StartRefused(str(error)) from None
    if record is None:
        raise StartRefused("the database holds no cluster yet; run `tokenbroker init` first")
    kms = [keys[uri] for uri in settings.kms.keys]
    return await open_root(record=record, kms=kms, expected_cluster_id=settings.cluster.id)


def _certificate(settings: Settings) -> Certificate | None:
    server = settings.server
    if server.tls_cert is None and server.tls_key is None:
        return None
    if server.tls_cert is None or server.tls_key is None:
        raise StartRefused("server.tls_cert and server.tls_key belong together; one of them is missing")
    return Certificate(chain=server.tls_cert, key=server.tls_key)


def _session_settings(settings: Settings) -> SessionSettings:
    return SessionSettings(
        heartbeat_s=settings.server.heartbeat.total_seconds(),
        drain_s=settings.server.drain.total_seconds(),
        sessions_per_worker_max=settings.server.sessions_per_worker,
        record_retention_s=settings.leases.retention.total_seconds(),
        bindings=tuple(leaf_digest(path) for path in settings.server.proxy_certs),
    )


def _no_bindings(_context: ssl.SSLContext) -> tuple[bytes, ...]:
    return ()


def _alarm(failure: KeyFailure) -> None:
    log.error("data_key_refused", failure=str(failure))
