"""Take over another configuration while serving: its KMS keys and keyrings, all of it or nothing.

What every other section says holds from the next start on. Reading the file, and when, is decided in `serving`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import structlog

from broker.audit.entries import ConfigurationReloaded
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import StartRefused
from broker.foundations import named_keys, open_cluster, places_of, refuse_stranding, vault_settings
from broker.keyrings import Keyrings
from broker.kms_keys import KmsKeys
from broker.settings import Settings
from broker.vault.vault import Vault
from kms.errors import KmsError
from storage.port import Storage

log = structlog.get_logger()

_AGAIN_S = 10.0
"""How often a KMS key is tried that did not open at the start."""
_KEYRINGS_AN_ENTRY = 256
_URIS_AN_ENTRY = 8


class Reloading:
    """The configuration in force, and the way to another one. settings: what the broker was started with."""

    def __init__(
        self,
        *,
        settings: Settings,
        storage: Storage,
        keys: KmsKeys,
        authority: Authority,
        vault: Vault,
        keyrings: Keyrings,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._storage = storage
        self._keys = keys
        self._authority = authority
        self._vault = vault
        self._keyrings = keyrings
        self._clock = clock
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Open KMS keys that did not open at the start, once they do; until cancelled."""
        while True:
            await self._clock.sleep(_AGAIN_S)
            for uri, before in self._keys.away().items():
                error = await self._keys.open_again(uri)
                if error is None:
                    self._vault.follow(vault_settings(self._settings))
                    log.info("kms_opens_again", kms_key=uri)
                elif str(error) != str(before):
                    log.error("kms_does_not_open", kms_key=uri, error=str(error))

    async def apply(self, wanted: Settings) -> None:
        """Put `kms.keys` and `keyrings` of `wanted` in force, and record that.

        New KMS keys are open and work before anything changes; those that nothing needs any more are closed when the
        calls to them are over. Leases are served meanwhile.
        StartRefused: a KMS key cannot be opened, or does not work; no KMS key would open the root key or some data key;
        a bound is wrong. What storage and the vault raise: it could not be recorded. Whatever is raised, the
        configuration before stays in force.
        """
        async with self._turn:
            await self._apply(wanted)

    async def _apply(self, wanted: Settings) -> None:
        before = self._settings
        kms = before.kms.model_copy(update={"keys": wanted.kms.keys})
        after = before.model_copy(update={"kms": kms, "keyrings": wanted.keyrings})
        for setting in _changed(after, wanted):
            log.warning("needs_a_restart", setting=setting)
        if after == before:
            log.info("configuration_unchanged")
            return
        vault_settings(after)  # refuses bounds that are wrong, before anything is opened
        fresh = await self._open(after)
        rooted_elsewhere = after.kms.keys != before.kms.keys
        try:
            await self._check(after, root=rooted_elsewhere)
        except BaseException:
            await self._close(fresh)
            raise
        # From here on nothing that was opened is closed on failure: the database may name it already, since a commit
        # can land unconfirmed. The next reload closes what it does not need.
        self._put_in_force(after)
        try:
            await self._keyrings.settle(tuple(self._entries(before, after)))
        except BaseException:
            self._put_in_force(before)
            raise
        try:
            # What was made or wrapped meanwhile, for the configuration before, is on record by now; see
            # `KeyAdmin.check_wraps` for what comes later.
            await self._check(after, root=rooted_elsewhere)
        except StartRefused:
            self._put_in_force(before)
            await self._keyrings.settle(tuple(self._entries(after, before)))
            raise
        self._settings = after
        leaving = tuple(uri for uri in self._keys if uri not in named_keys(after))
        await self._close(leaving)
        log.info("configuration_reloaded", opened=fresh, closed=leaving)

    async def _open(self, settings: Settings) -> tuple[str, ...]:
        """Open what is not open, and see that it works. All or none."""
        fresh: list[str] = []
        try:
            for uri in named_keys(settings):
                try:
                    if await self._keys.open(uri):
                        fresh.append(uri)
                        await self._see_it_work(uri)
                except KmsError as error:
                    raise StartRefused(f"{places_of(uri, settings)}: {error}") from None
        except BaseException:
            await self._close(tuple(fresh))
            raise
        return tuple(fresh)

    async def _see_it_work(self, uri: str) -> None:
        await self._keys[uri].check()
        for warning in (await self._keys[uri].describe()).warnings:
            log.warning("kms", kms_key=uri, warning=warning)

    async def _close(self, uris: tuple[str, ...]) -> None:
        """Ask these keys nothing more, and close each when the calls to it are over."""
        closing = [(uri, self._keys.take_out(uri)) for uri in uris]
        self._vault.follow(vault_settings(self._settings))
        for uri, close in closing:
            await self._vault.let_go(uri)
            close()

    async def _check(self, settings: Settings, *, root: bool) -> None:
        if root:
            await open_cluster(self._storage, self._keys, settings)
        await refuse_stranding(self._authority, self._keys, settings)

    def _put_in_force(self, settings: Settings) -> None:
        self._keys.defaults = settings.kms.keys
        self._keyrings.configured = settings.keyrings
        self._vault.follow(vault_settings(settings))

    def _entries(self, before: Settings, after: Settings) -> Iterator[ConfigurationReloaded]:
        """What the audit log says of this; in several entries, where one would be too large."""
        names = sorted(before.keyrings.keys() | after.keyrings.keys())
        changed = [name for name in names if before.keyrings.get(name) != after.keyrings.get(name)]
        was, now = named_keys(before), named_keys(after)
        for keyrings, kms_keys, opened, closed in zip_longest(
            _parts(changed, _KEYRINGS_AN_ENTRY),
            _parts(after.kms.keys if after.kms.keys != before.kms.keys else (), _URIS_AN_ENTRY),
            _parts([uri for uri in now if uri not in was], _URIS_AN_ENTRY),
            _parts([uri for uri in was if uri not in now], _URIS_AN_ENTRY),
            fillvalue=(),
        ):
            yield ConfigurationReloaded(
                at=self._clock.now(),
                actor="system",
                keyrings=keyrings,
                kms_keys=kms_keys,
                opened=opened,
                closed=closed,
            )


def _parts(items: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(items[at : at + size]) for at in range(0, len(items), size)]


def _changed(before: Settings, after: Settings) -> Iterator[str]:
    """The names of the settings that differ."""
    old, new = before.model_dump(), after.model_dump()
    for section, values in new.items():
        for key in values:
            if old[section].get(key) != values[key]:
                yield f"{section}.{key}"
