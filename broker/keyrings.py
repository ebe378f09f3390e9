"""Keep keyrings as configured and their data keys young. What a keyring is lives in `broker.admin.keys`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import msgspec
import structlog

from broker.admin.errors import Exists
from broker.admin.keys import KeyAdmin
from broker.admin.plan import Plan, carry_out
from broker.audit.entries import Entry, KeyChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BrokerError
from broker.settings import KeyringSection
from broker.vault.vault import Vault
from storage.records import KeyringRecord

log = structlog.get_logger()

_EVERY_S = 3600.0


class Keyrings:
    """The duties of keyrings: what the configuration names exists, and no data key outlives its time.

    configured: the sections of the configuration in force, by keyring.
    """

    def __init__(
        self, *, authority: Authority, vault: Vault, clock: Clock, configured: dict[str, KeyringSection]
    ) -> None:
        self._authority = authority
        self._vault = vault
        self._clock = clock
        self.configured = configured
        self._keys = KeyAdmin(authority=authority, vault=vault, clock=clock)

    async def settle(self, reloaded: tuple[Entry, ...] = ()) -> None:
        """Make the keyrings that the configuration names, and take over what it says of those that exist.

        The latter in one commit with the entries `reloaded`: all of it or nothing. Raises what the vault and the
        journal raise: a broker that cannot do this does not start.
        """
        await self._keys.bootstrap()
        for name, section in self.configured.items():
            if (name,) not in self._authority.keyrings:
                # Another replica that reads the same configuration may have been quicker.
                with suppress(Exists):
                    await self._keys.add_keyring(
                        name, kms_keys=section.kms_keys, authorize=section.authorize, actor="system"
                    )

        async def decide() -> Plan[None]:
            updates = tuple(self._taken_over())
            changes = (
                KeyChanged(at=self._clock.now(), actor="system", keyring=each.name, change="configured")
                for each in updates
            )
            return Plan(result=None, entries=(*reloaded, *changes), updates=updates)

        await carry_out(self._authority, decide)

    def _taken_over(self) -> Iterator[KeyringRecord]:
        """The keyrings that the configuration changes, as it wants them."""
        for name, section in self.configured.items():
            known = self._authority.keyrings.get((name,))
            if known is not None and (known.kms_keys, known.authorize) != (section.kms_keys, section.authorize):
                yield msgspec.structs.replace(
                    known, rev=known.rev + 1, kms_keys=section.kms_keys, authorize=section.authorize
                )

    async def run(self) -> None:
        """Replace active data keys that are old or nearly out of seals, once an hour, until cancelled."""
        while True:
            for keyring in list(self._authority.keyrings):
                try:
                    await self._renew(keyring.name)
                except BrokerError as error:
                    log.warning("data_key_not_replaced", keyring=keyring.name, error=error.message)
            await self._clock.sleep(_EVERY_S)

    async def _renew(self, name: str) -> None:
        active = self._keys.active(self._keys.keyring(name))
        if self._vault.needs_rotation(active, now=self._clock.now()):
            await self._keys.rotate(name, actor="system", from_data_key=active.id)
            log.info("data_key_replaced", keyring=name)
