"""All steps of `init`, in an order that a crash cannot spoil: running it again goes on where the first one stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.app import open_broker
from broker.clock import Clock
from broker.errors import StartRefused
from broker.exclusive import InUse, exclusive
from broker.foundations import places_of
from broker.private_files import create
from broker.replicas.roll import NameTaken
from broker.settings import Settings, load_settings
from broker.setup.config_file import render_config
from broker.setup.first_admin import admit_first, replace_first
from broker.setup.founding import found_cluster
from broker.setup.key_files import make_key_files
from broker.setup.layout import Layout, clear_remains, make_folder
from kms.catalog import open_kms
from kms.errors import KmsError
from kms.port import Kms
from storage.catalog import open_storage, shown_url
from storage.records import RootRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What was looked at, and what was found or done."""

    what: str
    said: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Initialised:
    """What an installation consists of, after `initialise`. profile: None when the first admin's is not here."""

    cluster_id: str
    layout: Layout
    profile: Path | None
    steps: tuple[Step, ...]


async def initialise(
    layout: Layout, *, own_config: bool, passphrase_file: Path | None, new_credential: bool, clock: Clock
) -> Initialised:
    """Make whatever is missing of an installation; nothing that is there is overwritten.

    own_config: the configuration is the operator's and must exist. passphrase_file: seals the key of a configuration
    that is written here. new_credential: the first admin gets another one.
    StartRefused, or what storage and KMS raise: it says what to mend; what was made so far serves the next run.
    """
    steps = [Step(what="folder", said=f"{layout.folder}: {make_folder(layout.folder)}")]
    if not own_config:
        steps.append(_write_config(layout, passphrase_file))
    settings = load_settings(layout.config)
    if not settings.storage.url:
        raise StartRefused(f"{layout.config} names no storage.url, such as sqlite:////var/lib/tokenbroker/broker.db")
    try:
        with exclusive(settings.storage.url):
            return await _fill(layout, settings, steps, new_credential=new_credential, clock=clock)
    except (InUse, NameTaken):
        # Provisioning runs init again and again, also while a broker serves: that is no failure if nothing is missing.
        if new_credential or not settings.cluster.id or not layout.audit_vkey.exists():
            raise
        steps.append(Step(what="broker", said="it is running on this data, so there is nothing to do"))
        profile = layout.profile if layout.profile.exists() else None
        return Initialised(cluster_id=settings.cluster.id, layout=layout, profile=profile, steps=tuple(steps))


async def _fill(
    layout: Layout, settings: Settings, steps: list[Step], *, new_credential: bool, clock: Clock
) -> Initialised:
    clear_remains(layout.folder)
    steps += await _found(layout, settings, clock)
    settings = load_settings(layout.config)
    async with open_broker(settings, clock=clock) as broker:
        names = sorted(keyring.name for keyring in broker.authority.keyrings)
        steps.append(Step(what="keyrings", said=", ".join(names)))
        admit = replace_first if new_credential else admit_first
        admitted = await admit(authority=broker.authority, layout=layout, url=_url(settings), clock=clock)
        steps.append(Step(what="admin", said=admitted.said))
        steps.append(_publish_vkey(layout, broker.journal.vkey))
    return Initialised(
        cluster_id=settings.cluster.id,
        layout=layout,
        profile=layout.profile if admitted.has_profile else None,
        steps=tuple(steps),
    )


async def _found(layout: Layout, settings: Settings, clock: Clock) -> list[Step]:
    """Make the database, the key files and the cluster."""
    async with open_storage(settings.storage.url) as storage:
        founded = await storage.get(RootRecord, ("root",)) is not None
        files = make_key_files(settings, founded=founded)
        async with _open_all(settings) as kms:
            cluster_id, made = await found_cluster(
                storage=storage, kms=kms, layout=layout, pinned=settings.cluster.id, clock=clock
            )
    told = [Step(what="key file", said=f"{path}: made; back it up apart from the database") for path in files.made]
    told += [Step(what="key file", said=f"{path}: there already") for path in files.there]
    told.append(
        Step(what="database", said=f"{shown_url(settings.storage.url)}: {'there already' if founded else 'made'}")
    )
    told.append(Step(what="cluster", said=f"{cluster_id}: {'founded' if made else 'there already'}"))
    return told


@asynccontextmanager
async def _open_all(settings: Settings) -> AsyncIterator[list[Kms]]:
    async with AsyncExitStack() as stack:
        keys = []
        for uri in dict.fromkeys(settings.kms.keys):
            try:
                keys.append(await stack.enter_async_context(open_kms(uri)))
            except KmsError as error:
                raise StartRefused(f"{places_of(uri, settings)}: {error}") from None
        yield keys


def _write_config(layout: Layout, passphrase_file: Path | None) -> Step:
    if layout.config.exists():
        return Step(what="configuration", said=f"{layout.config}: there already")
    if layout.database.exists():
        raise StartRefused(
            f"{layout.database} is there and its configuration {layout.config} is missing: restore the configuration, "
            "which pins the cluster, or name another data directory"
        )
    try:
        create(layout.config, render_config(layout, passphrase_file=passphrase_file))
    except OSError as error:
        raise StartRefused(f"{layout.config} cannot be written ({error.strerror})") from None
    return Step(what="configuration", said=f"{layout.config}: made")


def _publish_vkey(layout: Layout, vkey: str) -> Step:
    content = f"{vkey}\n".encode()
    if not layout.audit_vkey.exists():
        create(layout.audit_vkey, content, mode=0o644)
        return Step(what="audit key", said=f"{layout.audit_vkey}: made; give it to whoever audits")
    if layout.audit_vkey.read_bytes() != content:
        raise StartRefused(f"{layout.audit_vkey} is another cluster's audit key; move it away and run init again")
    return Step(what="audit key", said=f"{layout.audit_vkey}: there already")


def _url(settings: Settings) -> str:
    """Where operators of this machine will find the broker; "" if nobody knows before it listens."""
    host, port = settings.address
    if port == 0:
        return ""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - not a bind
    shown = f"[{reachable}]" if ":" in reachable else reachable
    return f"{'https' if settings.server.tls_cert else 'http'}://{shown}:{port}"
