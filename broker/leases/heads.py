"""The current version of each token, verified and kept in memory with a bound.

A head is a token's row and the row of its current version, still sealed. Nothing here opens values or decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple

from broker.errors import Tampered
from storage.port import PAGE_MAX, Storage
from storage.records import TokenRecord, VersionRecord
from storage.table import Key, Record


class Head(NamedTuple):
    """A token and its current version; `version` is None while there is none."""

    token: TokenRecord
    version: VersionRecord | None

    @property
    def leasable(self) -> VersionRecord | None:
        """The version a worker may have now; None when the token is disabled or has no current version."""
        return None if self.token.disabled else self.version


_WARM_PAGE: Final = 100
"""Small, so that reading ahead holds up nobody for more than a few milliseconds."""

ABSENT: Final = None
"""What `Heads.known` holds for a name that no token has."""


class Heads:
    """Token heads by name, at most `bound` of them; the longest kept leave first."""

    def __init__(self, *, storage: Storage, verify: Callable[[Record], None], bound: int) -> None:
        self._storage = storage
        self._verify = verify
        self._bound = bound
        self._loads: list[set[str]] = []
        self.known: dict[str, Head | None] = {}

    def forget(self, names: Iterable[str]) -> None:
        """Drop these heads: they changed. A load that is under way will not bring the old ones back."""
        for name in names:
            self.known.pop(name, None)
            for changed in self._loads:
                changed.add(name)

    async def load(self, names: Sequence[str]) -> None:
        """Read and verify these heads, so that `known` has them (ABSENT where there is no such token).

        A name that changed while it was read is left out; the caller asks again. Raises what storage raises, and
        Tampered when a row is not what this cluster wrote.
        """
        for start in range(0, len(names), PAGE_MAX):
            await self._load_page(names[start : start + PAGE_MAX])

    async def warm(self, *, pause: Callable[[], Awaitable[None]]) -> None:
        """Read heads ahead of the first leases, until all or `bound` are known; `pause` is awaited between pages.

        Storage errors end it early: what is not here is read when it is asked for.
        """
        after: Key | None = None
        while len(self.known) < self._bound:
            page = await self._storage.select(TokenRecord, after=after, limit=_WARM_PAGE)
            await self.load([token.name for token in page.records if token.name not in self.known])
            after = page.next
            if after is None:
                return
            await pause()

    async def _load_page(self, names: Sequence[str]) -> None:
        changed: set[str] = set()
        self._loads.append(changed)
        try:
            tokens = await self._storage.get_many(TokenRecord, [(name,) for name in names])
            keys = [(token.name, token.current) for token in tokens.values() if token.current]
            versions = await self._storage.get_many(VersionRecord, keys)
        finally:
            self._loads = [load for load in self._loads if load is not changed]
        for name in names:
            if name in changed:
                continue
            token = tokens.get((name,))
            self._keep(name, None if token is None else self._verified(token, versions))

    def _verified(self, token: TokenRecord, versions: dict[tuple[str | int, ...], VersionRecord]) -> Head:
        self._verify(token)
        if not token.current:
            return Head(token, None)
        version = versions.get((token.name, token.current))
        if version is None:
            raise Tampered(f"token {token.name}: its current version {token.current} is missing from the database")
        self._verify(version)
        return Head(token, version)

    def _keep(self, name: str, head: Head | None) -> None:
        while len(self.known) >= self._bound:
            self.known.pop(next(iter(self.known)))
        self.known[name] = head
