"""The open KMS keys of this process, by URI; they enter and leave while it runs.

How a key is opened is told by whoever makes this, and which keys are wanted is decided by whoever calls it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import structlog

from kms.errors import KmsError
from kms.port import Kms

log = structlog.get_logger()

Opener = Callable[[str], AbstractAsyncContextManager[Kms]]


class KmsKeys(Mapping[str, Kms]):
    """What is open now. Each key is opened and closed by a task of its own, since an adapter may keep tasks inside.

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

    async def open(self, uris: Iterable[str]) -> tuple[str, ...]:
        """Open those of `uris` that are not open, in their order; returns which these were.

        All or none: if one cannot be opened, those that were opened before it are closed again. Raises `kms.errors`.
        """
        fresh = tuple(uri for uri in dict.fromkeys(uris) if uri not in self._open)
        try:
            for uri in fresh:
                owner = _Owner(uri, self._opener)
                self._owners[uri] = owner
                self._tasks.create_task(owner.run())
                self._open[uri] = await owner.opened
        except BaseException:
            for uri in fresh:
                self._open.pop(uri, None)
                if uri in self._owners:
                    self._owners.pop(uri).let_go()
            raise
        return fresh

    def take_out(self, uri: str) -> Callable[[], None]:
        """Forget an open key at once; calling what this returns closes it. KeyError: it is not open."""
        del self._open[uri]
        return self._owners.pop(uri).let_go

    def let_go(self) -> None:
        """Close every key."""
        self._open.clear()
        for owner in self._owners.values():
            owner.let_go()
        self._owners.clear()


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
