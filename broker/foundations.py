"""What a broker stands on: its KMS keys and its cluster's root key, opened as the configuration says.

The same for a start and for a configuration that is read again; what a refusal leads to is not decided here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import structlog

from broker.authority.authority import Authority
from broker.errors import StartRefused
from broker.kms_keys import Away, KmsKeys, owning_kms_keys
from broker.settings import KeyringSection, Settings
from broker.vault.root import Root, open_root
from broker.vault.settings import CachePolicy, VaultSettings
from broker.vault.stranding import find_stranded
from kms.catalog import open_kms
from kms.errors import BadKey, KmsError
from kms.port import Kms
from storage.errors import StorageError
from storage.port import Storage
from storage.records import RootRecord

log = structlog.get_logger()


def named_keys(settings: Settings) -> tuple[str, ...]:
    """Every KMS key that the configuration names, once, in the order of the file."""
    uris = [*settings.kms.keys, *(uri for ring in settings.keyrings.values() for uri in ring.kms_keys)]
    return tuple(dict.fromkeys(uris))


def places_of(uri: str, settings: Settings) -> str:
    """Where the configuration names a KMS key. A URI that cannot be read is not shown: a secret may be in it."""
    lists = {"kms.keys": settings.kms.keys}
    lists.update({f"keyrings.{name}.kms_keys": ring.kms_keys for name, ring in settings.keyrings.items()})
    return ", ".join(f"{where} number {uris.index(uri) + 1}" for where, uris in lists.items() if uri in uris)


@asynccontextmanager
async def open_keys(settings: Settings) -> AsyncIterator[KmsKeys]:
    """The KMS keys that the configuration names, and room for those that come later; closed when the context ends.

    One that does not open, answer or serve now is an error in the log, and the others of its keyring serve.
    StartRefused: one is no KMS key, or cannot be used as it is.
    """
    async with owning_kms_keys(open_kms) as keys:
        await keys.open_or_keep_place(named_keys(settings))
        for uri in keys:
            await _look_at(keys[uri], settings)
        keys.defaults = settings.kms.keys
        yield keys


async def _look_at(kms: Kms, settings: Settings) -> None:
    """Say what operators should know of a key. StartRefused: it is none."""
    try:
        warnings = (await kms.describe()).warnings
    except BadKey as error:
        raise StartRefused(f"{places_of(kms.uri, settings)}: {error}") from None
    except KmsError as error:
        log.error("kms_does_not_open", kms_key=kms.uri, error=str(error))  # noqa: TRY400 - it is the operator's
        return
    for warning in warnings:
        log.warning("kms", kms_key=kms.uri, warning=warning)


async def open_cluster(storage: Storage, keys: KmsKeys, settings: Settings) -> Root:
    """The root key of the cluster that the configuration pins.

    StartRefused: nothing is pinned, the database holds no cluster or another one, or no KMS key opens its root.
    """
    if not settings.cluster.id:
        raise StartRefused("cluster.id is not set; run `tokenbroker init`, which writes it into the configuration")
    try:
        record = await storage.get(RootRecord, ("root",))
    except StorageError as error:
        raise StartRefused(str(error)) from None
    if record is None:
        raise StartRefused("the database holds no cluster yet; run `tokenbroker init` first")
    kms = [keys[uri] for uri in settings.kms.keys]
    return await open_root(record=record, kms=kms, expected_cluster_id=settings.cluster.id, tell=_passed_over)


async def refuse_stranding(authority: Authority, keys: Mapping[str, Kms], settings: Settings) -> None:
    """Return if, under this configuration, some KMS key opens each data key. StartRefused: what would not open."""
    try:
        stranded = await find_stranded(
            authority.data_keys,
            kms_keys=_kms_keys(authority, settings),
            configured=named_keys(settings),
            kms={uri: kms for uri, kms in keys.items() if not isinstance(kms, Away)},
            cluster_id=settings.cluster.id,
        )
    except KmsError as error:
        raise StartRefused(
            f"whether a KMS key opens what was wrapped under another name cannot be told: {error}"
        ) from None
    if stranded:
        raise StartRefused("; ".join(map(str, stranded)))


def _kms_keys(authority: Authority, settings: Settings) -> Callable[[str], tuple[str, ...]]:
    """The KMS keys that a keyring has under this configuration, which the database learns of later."""

    def of(keyring: str) -> tuple[str, ...]:
        section = settings.keyrings.get(keyring)
        record = authority.keyrings.get((keyring,))
        own = section.kms_keys if section is not None else record.kms_keys if record is not None else ()
        return own or settings.kms.keys

    return of


def vault_settings(settings: Settings) -> VaultSettings:
    """The vault's bounds as configured. StartRefused: one of them would switch a protection off."""
    kms = settings.kms

    def policy(ring: KeyringSection) -> CachePolicy:
        soft_ttl = kms.cache_soft_ttl if ring.cache_soft_ttl is None else ring.cache_soft_ttl
        hard_ttl = kms.cache_hard_ttl if ring.cache_hard_ttl is None else ring.cache_hard_ttl
        return CachePolicy(soft_ttl_s=soft_ttl.total_seconds(), hard_ttl_s=hard_ttl.total_seconds(), strict=ring.strict)

    return VaultSettings(
        soft_ttl_s=kms.cache_soft_ttl.total_seconds(),
        hard_ttl_s=kms.cache_hard_ttl.total_seconds(),
        policies={name: policy(ring) for name, ring in settings.keyrings.items()},
        rate_per_s=kms.rate_per_s,
        active_days=kms.active_days,
    )


def _passed_over(error: KmsError) -> None:
    log.error("root_key_not_opened", kms_key=error.kms_key, error=str(error))
