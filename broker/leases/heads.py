"""The live versions of each token, verified and kept in memory with a bound.

A head is a token's row and the rows of its current and its previous version, and of one that is being rolled out, still
sealed. Nothing here opens values.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple

from broker.errors import Tampered
from broker.leases.issued.rows import ISSUED
from broker.leases.shares import bucket
from storage.port import PAGE_MAX, Storage
from storage.records import TokenRecord, VersionRecord
from storage.records.leases import LeaseStage
from storage.table import Key, Record


class Head(NamedTuple):
    """A token, its current version, its previous one, and the one being rolled out; None while there is none.

    Where each lease has a value of its own, `issued.rows.ISSUED` stands for the current version.
    """

    token: TokenRecord
    version: VersionRecord | None
    previous: VersionRecord | None
    target: VersionRecord | None = None

    def leasable(self, stage: LeaseStage, worker: str) -> VersionRecord | None:
        """The version of this stage, which the worker may have now; None: there is none, or the token is disabled."""
        if self.token.disabled:
            return None
        if self.token.rollout:
            return self._rolling(stage, worker)
        return self.version if stage == "current" else self.previous

    def _rolling(self, stage: LeaseStage, worker: str) -> VersionRecord | None:
        """During a rollout two versions are in use; whoever leases both stages has both, whichever is his own."""
        token = self.token
        has_target = bucket(token.name, worker, token.rollout) < token.rollout_share
        return self.target if has_target is (stage == "current") else self.version


_WARM_PAGE: Final = 100
"""Small, so that reading ahead holds up nobody for more than a few milliseconds."""

SEALED_BYTES_MAX: Final = 256 * 2**20
"""Sealed values in memory, all heads together; beyond, the longest kept leave, however few heads there are."""

ABSENT_SHARE: Final = 8
"""One in so many heads may be a name that no token has: a worker that guesses names pushes out guesses, not tokens."""

ABSENT: Final = None
"""What `Heads.known` holds for a name that no token has."""


class Heads:
    """Token heads by name, at most `bound` of them and `bytes_max` of sealed values; the longest kept leave first."""

    def __init__(
        self,
        *,
        storage: Storage,
        verify: Callable[[Record], None],
        bound: int,
        bytes_max: int = SEALED_BYTES_MAX,
    ) -> None:
        self._storage = storage
        self._verify = verify
        self._bound = bound
        self._bytes_max = bytes_max
        self._bytes = 0
        self._absent: dict[str, None] = {}
        self._loads: list[tuple[Sequence[str], set[str]]] = []
        self.known: dict[str, Head | None] = {}

    def stores(self, name: str) -> bool:
        """Whether it is known here that the token has values of its own, or is a pool of such: none is made for it."""
        head = self.known.get(name)
        return head is not None and head.token.kind != "issued"

    def forget(self, names: Iterable[str]) -> None:
        """Drop these heads: they changed. A load that is under way will not bring the old ones back."""
        for name in names:
            self._drop(name)
            for _, changed in self._loads:
                changed.add(name)

    def forget_all(self) -> None:
        """Drop every head: what changed is not known. Loads that are under way bring none back."""
        self.forget([*self.known, *(name for names, _ in self._loads for name in names)])

    async def load(self, names: Sequence[str]) -> None:
        """Read and verify these heads, so that `known` has them (ABSENT where there is no such token).

        A name that changed while it was read is left out; the caller asks again. Raises what storage raises, and
        Tampered when a row is not what this cluster wrote.
        """
        for start in range(0, len(names), PAGE_MAX):
            await self._load_page(names[start : start + PAGE_MAX])

    async def warm(self, *, pause: Callable[[], Awaitable[None]]) -> None:
        """Read heads ahead of the first leases, until all are known or the room is full; `pause` is awaited between
        pages.

        Storage errors end it early: what is not here is read when it is asked for.
        """
        after: Key | None = None
        while len(self.known) < self._bound and self._bytes < self._bytes_max // 2:
            page = await self._storage.select(TokenRecord, after=after, limit=_WARM_PAGE)
            await self.load([token.name for token in page.records if token.name not in self.known])
            after = page.next
            if after is None:
                return
            await pause()

    async def _load_page(self, names: Sequence[str]) -> None:
        changed: set[str] = set()
        load = (names, changed)
        self._loads.append(load)
        try:
            tokens = await self._storage.get_many(TokenRecord, [(name,) for name in names])
            live = {
                (token.name, number)
                for token in tokens.values()
                for number in (token.current, token.previous, token.rollout)
                if number
            }
            versions = await self._versions(list(live))
        finally:
            self._loads = [each for each in self._loads if each is not load]
        for name in names:
            if name in changed:
                continue
            token = tokens.get((name,))
            self._keep(name, None if token is None else self._verified(token, versions))

    async def _versions(self, keys: Sequence[Key]) -> dict[Key, VersionRecord]:
        found: dict[Key, VersionRecord] = {}
        for start in range(0, len(keys), PAGE_MAX):
            found.update(await self._storage.get_many(VersionRecord, keys[start : start + PAGE_MAX]))
        return found

    def _verified(self, token: TokenRecord, versions: dict[tuple[str | int, ...], VersionRecord]) -> Head:
        self._verify(token)
        if token.kind == "issued":
            return Head(token, ISSUED, None)
        live: list[VersionRecord | None] = []
        live_now = (("current", token.current), ("previous", token.previous), ("rolled out", token.rollout))
        for stage, number in live_now:
            version = versions.get((token.name, number)) if number else None
            if version is not None:
                self._verify(version)
            elif number:
                raise Tampered(f"token {token.name}: its {stage} version {number} is missing from the database")
            live.append(version)
        return Head(token, *live)

    def _keep(self, name: str, head: Head | None) -> None:
        self._drop(name)
        size = _sealed_bytes(head)
        if head is ABSENT:
            while len(self._absent) >= max(1, self._bound // ABSENT_SHARE):
                self._drop(next(iter(self._absent)))
        while self.known and (len(self.known) >= self._bound or self._bytes + size > self._bytes_max):
            self._drop(next(iter(self.known)))
        self.known[name] = head
        self._bytes += size
        if head is ABSENT:
            self._absent[name] = None

    def _drop(self, name: str) -> None:
        self._absent.pop(name, None)
        self._bytes -= _sealed_bytes(self.known.pop(name, None))


def _sealed_bytes(head: Head | None) -> int:
    return 0 if head is None else sum(len(version.sealed) for version in head[1:] if version is not None)
