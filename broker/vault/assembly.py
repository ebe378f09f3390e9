"""Puts a vault together and owns what runs beside it. What a vault does is in `vault`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from broker.clock import Clock
from broker.vault.counters import VaultCounters
from broker.vault.failures import KeyFailure
from broker.vault.gates import KmsGates
from broker.vault.key_cache import KeyCache
from broker.vault.minting import DataKeyMint
from broker.vault.needs import Needs
from broker.vault.settings import VaultSettings
from broker.vault.unwrapping import Unwrapper
from broker.vault.vault import Vault
from kms.port import Kms
from storage.records import DataKeyRecord, KeyringRecord


@asynccontextmanager
async def open_vault(
    *,
    cluster_id: str,
    kms: Mapping[str, Kms],
    default_kms_keys: Callable[[], Sequence[str]],
    data_key: Callable[[str], DataKeyRecord | None],
    keyring: Callable[[str], KeyringRecord | None],
    settings: VaultSettings,
    clock: Clock,
    jitter: Callable[[], float],
    alarm: Callable[[KeyFailure], None],
) -> AsyncIterator[Vault]:
    """A vault, whose tasks end and whose keys are wiped when the context ends.

    kms: every KMS key that is open now, by its URI. default_kms_keys: those of keyrings that name none, in the order of
    asking. Both may change; `Vault.follow` is called afterwards.
    data_key, keyring: look records up in books that are verified already and held in memory.
    jitter: uniform in [0, 1). alarm: told of damaged and refused keys; it must return at once and not raise.
    A failure of a background task is a bug, and ends the context with an ExceptionGroup.
    """
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as tasks:
        counters = VaultCounters()
        gates = KmsGates(kms=kms, settings=settings, clock=clock, jitter=jitter)

        def kms_keys(ring: KeyringRecord | None) -> Sequence[str]:
            return (ring is not None and ring.kms_keys) or default_kms_keys()

        needs = Needs(cluster_id=cluster_id, data_key=data_key, keyring=keyring, kms_keys=kms_keys, opens=gates.opens)
        cache = KeyCache(
            tasks=tasks,
            unwrap=Unwrapper(gates=gates, counters=counters, alarm=alarm).unwrap,
            is_current=needs.is_current,
            settings=settings,
            clock=clock,
            jitter=jitter,
            counters=counters,
        )
        sweeping = tasks.create_task(cache.run())
        try:
            yield Vault(
                gates=gates,
                needs=needs,
                cache=cache,
                mint=DataKeyMint(
                    cluster_id=cluster_id, gates=gates, needs=needs, cache=cache, kms_keys=kms_keys, settings=settings
                ),
                settings=settings,
                counters=counters,
            )
        except asyncio.CancelledError:
            raise  # the group's own way of ending the body when one of its tasks failed
        except BaseException as error:  # noqa: BLE001 - it leaves below as it is, not inside an ExceptionGroup
            failure = error
        finally:
            cache.close()
            sweeping.cancel()
    if failure is not None:
        raise failure
