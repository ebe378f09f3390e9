"""Seal values, setting aside seals and replacing data keys when their time has come.

Committing what was sealed is done by whoever asked for it, and only while the data key is still the active one
(`relies_on`): so a data key that is active no longer gets no further row, and may be destroyed when it has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from broker.admin.keys import KeyAdmin
from broker.admin.plan import Plan, carry_out
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import Unavailable
from broker.vault.errors import ReservationNeeded
from broker.vault.vault import Sealed, Vault
from storage.port import Expect
from storage.records import DataKeyRecord, KeyringRecord, VersionRecord

ATTEMPTS_MAX: Final = 4
"""Others may spend a block before this caller's turn comes."""
_log = structlog.get_logger("tokenbroker.admin")


def relies_on(keyring: KeyringRecord) -> Expect:
    """What a commit of rows sealed under the active data key of `keyring` relies on: nobody has rotated it since."""
    return Expect(KeyringRecord, keyring.key, keyring.rev)


class Sealer:
    """Seals for the admin services. A data key that is due is replaced by whoever seals next."""

    def __init__(self, *, authority: Authority, vault: Vault, keys: KeyAdmin, clock: Clock) -> None:
        self._authority = authority
        self._vault = vault
        self._keys = keys
        self._clock = clock
        self._turn = asyncio.Lock()
        self._blocks = 0

    async def seal(self, *, token: str, version: int, keyring: str, value: bytes) -> tuple[Sealed, KeyringRecord]:
        """Seal the value for this token and version; the keyring, under whose active data key, is told beside it.

        NotFound: no such keyring. Unavailable, Tampered: the data key cannot be had or replaced. See `Vault.seal`.
        """
        return await self._sealing(
            keyring, lambda ring: self._vault.seal(token=token, version=version, keyring=ring, value=value)
        )

    async def reseal(self, record: VersionRecord) -> tuple[Sealed, KeyringRecord]:
        """Seal the value of a stored version anew, likewise. Raises as `seal` and `Vault.open`."""
        return await self._sealing(record.keyring, lambda ring: self._vault.reseal(record, ring))

    async def _sealing(
        self, keyring: str, seal: Callable[[KeyringRecord], Awaitable[Sealed]]
    ) -> tuple[Sealed, KeyringRecord]:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            ring = await self._fresh(keyring)
            blocks = self._blocks
            try:
                return await seal(ring), ring
            except ReservationNeeded:
                if attempt == ATTEMPTS_MAX:
                    raise
                await self._set_aside(keyring, blocks)
        raise AssertionError("the last attempt returns or raises")

    async def _fresh(self, name: str) -> KeyringRecord:
        """The keyring, its active data key replaced if that is due. Old keys go on serving while a KMS is away."""
        keyring = self._keys.keyring(name)
        if not self._is_due(keyring) or self._turn.locked():
            return keyring
        async with self._turn:
            if self._is_due(self._keys.keyring(name)):
                try:
                    await self._keys.rotate(name, actor="system", from_data_key=keyring.active_data_key)
                except Unavailable as error:
                    _log.warning("keys.rotation_postponed", keyring=name, error=error.code)
        return self._keys.keyring(name)

    def _is_due(self, keyring: KeyringRecord) -> bool:
        return self._vault.needs_rotation(self._keys.active(keyring), now=self._clock.now())

    async def _set_aside(self, name: str, blocks: int) -> None:
        """Reserve one more block, unless somebody ahead in the queue has done so."""
        async with self._turn:
            if self._blocks != blocks:
                return

            async def decide() -> Plan[DataKeyRecord]:
                record = self._vault.propose_reservation(self._keys.active(self._keys.keyring(name)))
                return Plan(result=record, entries=(), updates=(record,))

            self._vault.credit_reservation(await carry_out(self._authority, decide))
            self._blocks += 1
