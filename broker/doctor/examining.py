"""Ask everything a start would ask, in that order, without starting. Each answer is a finding, never an exception."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

from broker.app import AUDIT_SIGNING
from broker.audit.checkpoint import key_name
from broker.audit.lookback import look_back
from broker.audit.note import Signer, Verifier
from broker.audit.recovery import find_previous, newest_log
from broker.authority.authority import find_forged, load_authority
from broker.authority.pins import check_pins
from broker.clock import Clock
from broker.doctor.files import examine_files
from broker.doctor.findings import Finding, failed, ok, skipped, warning
from broker.doctor.kms_keys import examine_kms
from broker.doctor.machine import examine_clock, examine_machine
from broker.doctor.reading import NoWriter
from broker.doctor.replicas import examine_replicas, serving
from broker.doctor.rotations import examine_rotations
from broker.errors import BrokerError, StartRefused, Tampered
from broker.exclusive import InUse, database_file, exclusive
from broker.foundations import refuse_stranding, vault_settings
from broker.settings import Settings, load_settings
from broker.setup.layout import Layout
from broker.tls import Certificate, is_loopback
from broker.vault.root import Root, open_root
from kms.errors import KmsError
from kms.port import Kms
from storage.catalog import open_storage
from storage.errors import StorageError
from storage.port import Storage
from storage.records import AuditLogRecord, RootRecord

ROWS_SHOWN_MAX = 5

REFUSALS = (BrokerError, StorageError, KmsError, OSError)


async def examine(layout: Layout, clock: Clock) -> list[Finding]:
    """Every finding, in the order of a start. A broker may be serving this data meanwhile: then nothing is written."""
    try:
        settings = load_settings(layout.config)
        _ = settings.address
        vault_settings(settings)
    except REFUSALS as error:
        return [failed("configuration", str(error))]
    findings = [ok("configuration", f"{layout.config} has no unknown keys"), _listening(settings)]
    try:
        findings += examine_files(layout, settings)
        findings += examine_machine(layout.folder)
    except OSError as error:
        findings.append(failed("files", f"{error.filename}: {error.strerror}"))
    findings += [finding async for finding in _examine_data(settings, clock)]
    return findings


def _listening(settings: Settings) -> Finding:
    host, _ = settings.address
    server = settings.server
    if server.tls_cert is not None and server.tls_key is not None:
        try:
            Certificate(chain=server.tls_cert, key=server.tls_key)
        except REFUSALS as error:
            return failed("listening", str(error))
        return ok("listening", f"{server.listen} with TLS")
    if is_loopback(host):
        return ok("listening", f"{server.listen}, which only this machine can reach")
    if server.insecure_plaintext:
        return warning("listening", f"{server.listen} without TLS: let nobody but a TLS proxy reach it")
    return failed("listening", f"{server.listen} is not loopback: set server.tls_cert and server.tls_key")


async def _examine_data(settings: Settings, clock: Clock) -> AsyncIterator[Finding]:
    url = settings.storage.url
    try:
        database = database_file(url)
        if not url or (database is not None and not database.exists()):
            yield failed("storage", f"there is no database at {url or 'storage.url'} yet: run tokenbroker init")
            return
        async with AsyncExitStack() as stack:
            served = False
            try:
                stack.enter_context(exclusive(url))
            except InUse:
                served = True
            storage = await stack.enter_async_context(open_storage(url))
            living = await serving(storage)
            served = served or settings.instance in {row.instance for row in living}
            yield await _storage(storage, served=served)
            for finding in await examine_replicas(storage, living, clock):
                yield finding
            keys: list[Kms] = []
            async for finding in examine_kms(settings, stack, keys):
                yield finding
            async for finding in _cluster(storage, keys, settings, clock, served=served):
                yield finding
    except REFUSALS as error:
        yield failed("storage", str(error))


async def _storage(storage: Storage, *, served: bool) -> Finding:
    if served:
        await storage.position()
        return ok("storage", "it can be read; a broker is serving it, so nothing was written")
    health = await storage.check()
    facts = ", ".join(f"{name} {value}" for name, value in health.facts.items() if name != "schema")
    return ok("storage", f"it can be read and written; schema {health.schema}; {facts}")


async def _cluster(
    storage: Storage, keys: Sequence[Kms], settings: Settings, clock: Clock, *, served: bool
) -> AsyncIterator[Finding]:
    record = await storage.get(RootRecord, ("root",))
    if record is None or not settings.cluster.id:
        what = "the database holds no cluster" if record is None else "cluster.id is not set"
        yield failed("cluster", f"{what}: run tokenbroker init")
        return
    try:
        rooted = [key for key in keys if key.uri in settings.kms.keys]
        root = await open_root(record=record, kms=rooted, expected_cluster_id=settings.cluster.id)
    except StartRefused as error:
        yield failed("cluster", error.message)
        yield skipped("authority", "without the root key no row can be verified")
        yield skipped("audit log", "without the root key no checkpoint can be verified")
        return
    yield ok("cluster", f"the root key is that of {root.cluster_id}, which the configuration pins")
    async for finding in _authority(storage, root, settings, keys, clock, served=served):
        yield finding
    yield await _audit(storage, root, settings, served=served)
    newest = await storage.select(AuditLogRecord, descending=True, limit=1)
    yield examine_clock(clock.now(), newest.records[0].opened_at if newest.records else None)


def _verifier(root: Root) -> Verifier:
    return Verifier(Signer(name=key_name(root.cluster_id), seed=root.derive(AUDIT_SIGNING)).vkey)


async def _authority(
    storage: Storage, root: Root, settings: Settings, keys: Sequence[Kms], clock: Clock, *, served: bool
) -> AsyncIterator[Finding]:
    """Whether rows are genuine, and then whether a KMS key opens each data key, and rotations get on."""
    found = await look_back(storage, verifier=_verifier(root))
    try:
        authority = await load_authority(
            storage=storage, writer=NoWriter(), derive=root.derive, cluster_id=root.cluster_id, clock=clock
        )
        problems = await authority.check()
    except Tampered as error:
        forged = await find_forged(storage=storage, derive=root.derive, cluster_id=root.cluster_id, clock=clock)
        listed = "; ".join(problem.message for problem in forged[:ROWS_SHOWN_MAX])
        yield failed("authority", f"{error.message}{f' ({listed})' if listed else ''}")
        return
    if problems:
        listed = "; ".join(problem.message for problem in problems[:ROWS_SHOWN_MAX])
        yield failed("authority", f"{len(problems)} rows are not what this cluster wrote: {listed}")
        return
    try:
        check_pins(found, authority.manifests).refuse()
    except Tampered as error:
        yield failed("authority", error.message)
        return
    counts = f"{len(authority.workers)} workers, {len(authority.grants)} grants, {len(authority.admins)} admins"
    yield ok("authority", f"every row is signed by this cluster: {counts}, and every token")
    try:
        await refuse_stranding(authority, {key.uri: key for key in keys}, settings)
    except StartRefused as error:
        yield failed("data keys", error.message)
    else:
        yield ok("data keys", f"a KMS key of the configuration opens each of {len(authority.data_keys)}")
    for finding in await examine_rotations(storage, authority, clock, served=served):
        yield finding


async def _audit(storage: Storage, root: Root, settings: Settings, *, served: bool) -> Finding:
    if served:
        return ok("audit log", "a broker is writing it; verify it with tokenbroker audit verify --live")
    verifier = _verifier(root)
    try:
        newest = await newest_log(storage, settings.instance)
        found = await find_previous(storage, newest, cluster_id=root.cluster_id, verifier=verifier, accept_loss=False)
    except StartRefused as error:
        return failed("audit log", error.message)
    if found.closed:
        return ok("audit log", f"log {found.log} of {settings.instance} was closed in order")
    return warning(
        "audit log",
        f"log {found.log} of {settings.instance} ended in a crash; {found.unsigned} entries came after its last "
        "checkpoint. The next start continues it and records that",
    )
