"""The client for scripts without an event loop: the same leases, read from any thread.

    with tokenbroker_client.sync.lease(url, key="ci-1.key", token="github/ci") as lease:
        call_github(lease.value)

A thread of its own runs the asyncio client, so the connection heals and rotations arrive while the script is busy.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Literal, TypeVar

from tokenbroker_client.broker import Broker as AsyncBroker
from tokenbroker_client.broker import connect as connect_async
from tokenbroker_client.changes import Change
from tokenbroker_client.errors import Closed
from tokenbroker_client.keys import WorkerKey
from tokenbroker_client.lease import Lease as AsyncLease

T = TypeVar("T")
_Opening = AbstractAsyncContextManager[AsyncBroker]


class Lease:
    """A lease as `tokenbroker_client.Lease` has it; every property may be read from any thread."""

    def __init__(self, *, lease: AsyncLease, portal: _Portal) -> None:
        self._lease = lease
        self._portal = portal
        self._changes = lease.changes()

    @property
    def token(self) -> str:
        """The token's name."""
        return self._lease.token

    @property
    def value(self) -> str:
        """The current value as text; raises as `tokenbroker_client.Lease.value` does."""
        return self._portal.read(lambda: self._lease.value)

    @property
    def value_bytes(self) -> bytes:
        """The current value, byte for byte; raises as `tokenbroker_client.Lease.value_bytes` does."""
        return self._portal.read(lambda: self._lease.value_bytes)

    @property
    def stage(self) -> Literal["current", "previous"]:
        """Which version of the token it follows."""
        return self._lease.stage

    @property
    def version(self) -> int:
        """The version of the current value."""
        return self._lease.version

    def report_rejected(self) -> None:
        """As `tokenbroker_client.Lease.report_rejected`."""
        self._portal.read(self._lease.report_rejected)

    def report_rate_limited(self, *, retry_after_s: float | None = None) -> None:
        """As `tokenbroker_client.Lease.report_rate_limited`."""
        self._portal.read(lambda: self._lease.report_rate_limited(retry_after_s=retry_after_s))

    def report_ok(self) -> None:
        """As `tokenbroker_client.Lease.report_ok`."""
        self._portal.read(self._lease.report_ok)

    def wait_for_change(self, *, within_s: float) -> Change | None:
        """Wait for the next change since the lease began or this last returned one; None when none came in time.

        Raises as iterating `tokenbroker_client.Lease.changes` does; after a revocation was told it returns None.
        """

        async def wait() -> Change | None:
            try:
                async with asyncio.timeout(within_s):
                    return await anext(self._changes)
            except (TimeoutError, StopAsyncIteration):
                return None

        return self._portal.call(wait())

    def __repr__(self) -> str:
        return repr(self._lease)


class Broker:
    """A connection that heals itself, on a thread of its own."""

    def __init__(self, *, broker: AsyncBroker, portal: _Portal) -> None:
        self._broker = broker
        self._portal = portal

    @contextmanager
    def lease(
        self,
        token: str,
        *,
        ttl_s: float | None = None,
        stage: Literal["current", "previous"] = "current",
        wait_s: float | None = None,
    ) -> Iterator[Lease]:
        """Lease a token for as long as the block is open; arguments and errors are those of the asyncio `lease`."""
        block = self._broker.lease(token, ttl_s=ttl_s, stage=stage, wait_s=wait_s)
        lease = self._portal.call(block.__aenter__())
        try:
            yield Lease(lease=lease, portal=self._portal)
        finally:
            self._portal.call(block.__aexit__(None, None, None))


@contextmanager
def connect(
    url: str,
    *,
    key: WorkerKey | str | os.PathLike[str],
    worker: str | None = None,
    cluster: str | None = None,
    tls: ssl.SSLContext | None = None,
    insecure_plaintext: bool = False,
    connect_s: float = 30.0,
    request_s: float = 10.0,
) -> Iterator[Broker]:
    """Connect as a worker while the block is open; arguments and errors are those of the asyncio `connect`."""
    portal = _Portal()
    broker = portal.start(
        lambda: connect_async(
            url,
            key=key,
            worker=worker,
            cluster=cluster,
            tls=tls,
            insecure_plaintext=insecure_plaintext,
            connect_s=connect_s,
            request_s=request_s,
        )
    )
    try:
        yield Broker(broker=broker, portal=portal)
    finally:
        portal.stop()


@contextmanager
def lease(
    url: str,
    *,
    key: WorkerKey | str | os.PathLike[str],
    token: str,
    worker: str | None = None,
    ttl_s: float | None = None,
    stage: Literal["current", "previous"] = "current",
    wait_s: float | None = None,
    cluster: str | None = None,
    tls: ssl.SSLContext | None = None,
    insecure_plaintext: bool = False,
) -> Iterator[Lease]:
    """Connect and lease one token while the block is open."""
    with (
        connect(url, key=key, worker=worker, cluster=cluster, tls=tls, insecure_plaintext=insecure_plaintext) as broker,
        broker.lease(token, ttl_s=ttl_s, stage=stage, wait_s=wait_s) as held,
    ):
        yield held


class _Portal:
    """A thread with an event loop that has one client open."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave: asyncio.Event | None = None

    def start(self, dial: Callable[[], _Opening]) -> AsyncBroker:
        """Open the client on its thread, and return it. Raises what opening raises."""
        opened: Future[AsyncBroker] = Future()
        # A daemon, so that a script that never leaves its block can still end.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._live(dial, opened)), name="tokenbroker-client", daemon=True
        )
        self._thread.start()
        try:
            return opened.result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Close the client and wait until its thread has ended."""
        loop, leave = self._loop, self._leave
        if loop is not None and leave is not None:
            with suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(leave.set)
        if self._thread is not None:
            self._thread.join()
        self._loop = None

    def call(self, work: Coroutine[object, object, T]) -> T:
        """Run a coroutine on the client's thread, and return what it returns."""
        if self._loop is None or self._loop.is_closed():
            work.close()
            raise Closed
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # on Ctrl-C in this thread, what was asked for is given back
            raise

    def read(self, what: Callable[[], T]) -> T:
        """Evaluate something on the client's thread, where nothing changes meanwhile."""

        async def evaluate() -> T:
            return what()

        return self.call(evaluate())

    async def _live(self, dial: Callable[[], _Opening], opened: Future[AsyncBroker]) -> None:
        self._leave = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        try:
            async with dial() as broker:
                opened.set_result(broker)
                await self._leave.wait()
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)
