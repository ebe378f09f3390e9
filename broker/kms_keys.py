"""The KMS keys of this process, by URI; they enter and leave while it runs. One that does not open keeps its place.

How a key is opened is told by whoever makes this, and which keys are wanted is decided by whoever calls it.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import structlog

from kms.errors import KmsError
from kms.port import Caller, Description, Kms, Wrap

log = structlog.get_logger()

Opener = Callable[[str], AbstractAsyncContextManager[Kms]]


class Away:
    """In the place of a KMS key that does not open: whatever is asked of it raises what opening it raised last."""

    def __init__(self, uri: str, error: KmsError) -> None:
        self._uri = uri
        self.error = error

    @property
    def uri(self) -> str:
        """As the port says."""
        return self._uri

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        """As the port says."""
        raise self._told()

    async def unwrap(
        self,
        wrap: Wrap,
        context: Mapping[str, str],
        caller: Caller | None = None,
    ) -> bytes:
        """As the port says."""
        raise self._told()

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        """As the port says."""
        raise self._told()

    async def check(self) -> None:
        """As the port says."""
        raise self._told()

    async def describe(self) -> Description:
        """As the port says."""
        raise self._told()

    def _told(self) -> KmsError:
        """A copy: one exception that is raised again and again collects all their tracebacks."""
        return copy.copy(self.error)


class KmsKeys(Mapping[str, Kms]):
    """The keys that are open now, and those that are away (`Away`) until `open_again` succeeds.

    Each is opened and closed by a task of its own, since an adapter may keep tasks inside.
    defaults: the keys of keyrings that name none, in the order of asking; whoever has the configuration sets them.
    """

    def __init__(self, *, opener: Opener, tasks: asyncio.TaskGroup) -> None:
        self._opener = opener
        self._tasks = tasks
        self._open: dict[str, Kms] = {}
        self._owners: dict[str, _Owner] = {}
        self.defaults: tuple[str, ...] = ()

    def __getitem__(self, uri: str) -> Kms:
        return self._open[uri]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._open))

    def __len__(self) -> int:
        return len(self._open)

    async def open(self, uri: str) -> bool:
        """Open a key that is not here; whether that was to be done. Raises `kms.errors`, and it is not here then."""
        if uri in self._open:
            return False
        self._open[uri] = await self._opened(uri)
        return True

    async def open_or_keep_place(self, uris: Iterable[str]) -> None:
        """Open those of `uris` that are not here, all at once; one that does not open, for any reason, is `Away`."""
        fresh = tuple(uri for uri in dict.fromkeys(uris) if uri not in self._open)
        opened = await asyncio.gather(*(self._opened_or_away(uri) for uri in fresh))
        self._open.update(zip(fresh, opened, strict=True))

    def away(self) -> dict[str, KmsError]:
        """The keys that are away, and what opening each raised last."""
        return {uri: kms.error for uri, kms in self._open.items() if isinstance(kms, Away)}

    async def open_again(self, uri: str) -> KmsError | None:
        """Try to open a key that is away; None if it is open now, else what opening it raised."""
        kms = await self._opened_or_away(uri)
        place = self._open.get(uri)
        # Taken out meanwhile, it is closed as it comes; who has its place now, keeps it.
        if isinstance(place, Away):
            if isinstance(kms, Away):
                place.error = kms.error
            else:
                self._open[uri] = kms
        return kms.error if isinstance(kms, Away) else None

    def take_out(self, uri: str) -> Callable[[], None]:
        """Forget a key at once; calling what this returns closes it. KeyError: there is none."""
        del self._open[uri]
        owner = self._owners.pop(uri, None)
        return _nothing_to_close if owner is None else owner.let_go

    async def _opened(self, uri: str) -> Kms:
        """Have a task of its own open it. Raises `kms.errors`; then, or cancelled, nothing is left of it."""
        owner = _Owner(uri, self._opener)
        self._owners[uri] = owner
        self._tasks.create_task(owner.run())
        try:
            return await owner.opened
        except BaseException:
            owner.let_go()
            if self._owners.get(uri) is owner:
                del self._owners[uri]
            raise

    async def _opened_or_away(self, uri: str) -> Kms:
        try:
            return await self._opened(uri)
        except KmsError as error:
            return Away(uri, error)

    def let_go(self) -> None:
        """Close every key."""
        self._open.clear()
        for owner in self._owners.values():
            owner.let_go()
        self._owners.clear()


def _nothing_to_close() -> None:
    """A key that is away has nothing to close."""


class _Owner:
    """Holds one key open until it is let go. An owner that is let go before its key is open closes it as it comes."""

    def __init__(self, uri: str, opener: Opener) -> None:
        self._uri = uri
        self._opener = opener
        self._done = asyncio.Event()
        self.opened: asyncio.Future[Kms] = asyncio.get_running_loop().create_future()

    def let_go(self) -> None:
        """Close the key; what goes wrong with that is in the log."""
        self._done.set()

    async def run(self) -> None:
        """Open the key, and close it when it is let go."""
        try:
            async with self._opener(self._uri) as kms:
                if not self.opened.done():
                    self.opened.set_result(kms)
                await self._done.wait()
        except KmsError as error:
            if self.opened.done():
                log.warning("kms_key_not_closed", kms_key=self._uri, error=str(error))
            else:
                self.opened.set_exception(error)


@asynccontextmanager
async def owning_kms_keys(opener: Opener) -> AsyncIterator[KmsKeys]:
    """KMS keys, all closed when the context ends; none is open yet.

    A failure that is no KmsError, in opening, closing or a task of an adapter, is a bug and ends the context with an
    ExceptionGroup. An exception of the body passes unchanged.
    """
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as tasks:
        keys = KmsKeys(opener=opener, tasks=tasks)
        try:
            yield keys
        except asyncio.CancelledError:
            raise  # the group's own way of ending the body when one of its tasks failed
        except BaseException as error:  # noqa: BLE001 - it leaves below as it is, not inside an ExceptionGroup
            failure = error
        finally:
            keys.let_go()
    if failure is not None:
        raise failure
