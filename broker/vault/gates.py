"""The gates of the KMS keys that are open: a gate keeps its breaker, its pace and its health while its key stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

from broker.clock import Clock
from broker.vault.gate import KmsGate
from broker.vault.settings import VaultSettings
from kms.port import Kms


class KmsGates(Mapping[str, KmsGate]):
    """One gate for each open KMS key, in their order. kms: the open keys by URI, looked at anew each time."""

    def __init__(
        self, *, kms: Mapping[str, Kms], settings: VaultSettings, clock: Clock, jitter: Callable[[], float]
    ) -> None:
        self._kms = kms
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.calls_max)
        self._clock = clock
        self._jitter = jitter
        self._gates: dict[str, tuple[Kms, KmsGate]] = {}

    def __getitem__(self, uri: str) -> KmsGate:
        kms = self._kms[uri]
        known = self._gates.get(uri)
        if known is not None and known[0] is kms:
            return known[1]
        gate = KmsGate(kms=kms, settings=self._settings, slots=self._slots, clock=self._clock, jitter=self._jitter)
        self._gates[uri] = (kms, gate)
        return gate

    def __iter__(self) -> Iterator[str]:
        return iter(self._kms)

    def __len__(self) -> int:
        return len(self._kms)

    def __contains__(self, uri: object) -> bool:
        return uri in self._kms

    def opens(self, uri: str) -> bool:
        """Whether this KMS key is open here and may open what it wrapped."""
        return uri in self and not self[uri].wraps_only

    async def let_go(self, uri: str) -> None:
        """Refuse further calls to a key that is no longer open, and return when none is under way."""
        known = self._gates.pop(uri, None)
        if known is not None:
            await known[1].leave()
