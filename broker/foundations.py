"""What a broker stands on: its KMS keys and its cluster's root key, opened as the configuration says."""

from __future__ import annotations

from contextlib import AsyncExitStack

import structlog

from broker.errors import StartRefused
from broker.settings import Settings
from broker.vault.root import Root, open_root
from kms.catalog import open_kms
from kms.errors import KmsError
from kms.port import Kms
from storage.errors import StorageError
from storage.port import Storage
from storage.records import RootRecord

log = structlog.get_logger()


async def open_keys(stack: AsyncExitStack, settings: Settings) -> dict[str, Kms]:
    """Every KMS key that the configuration names, once. StartRefused: one cannot be used."""
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


async def open_cluster(storage: Storage, keys: dict[str, Kms], settings: Settings) -> Root:
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


def _passed_over(error: KmsError) -> None:
    log.error("root_key_not_opened", kms_key=error.kms_key, error=str(error))
