"""One thread that makes blocking calls for an event loop, one at a time. What the calls are for does not live here.

No ThreadPoolExecutor: the interpreter waits for the threads of one when it ends, and a call that hangs in a driver
would keep the broker from stopping. This thread is a daemon, and nobody waits for it for ever.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from kms.errors import Unavailable

CALLS_MAX = 64
"""How many calls may wait for the thread; one more is Unavailable."""
STUCK_S = 5.0
"""After how long a call counts as stuck; as long as the guard waits for one (`kms.guard.CALL_DEADLINE_S`)."""

T = TypeVar("T")


class CallThread:
    """Calls that run one after the other, in the order of asking, each on the same thread.

    A call that hangs costs this thread and no other: from stuck_s on, whatever is asked is Unavailable at once, until
    the call comes back. No second thread is started, for `kms.pkcs11.module` counts on there being one.
    """

    def __init__(self, *, name: str, calls_max: int = CALLS_MAX, stuck_s: float = STUCK_S) -> None:
        self._calls_max = calls_max
        self._stuck_s = stuck_s
        self._waiting: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._busy_since: float | None = None
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises. Unavailable: a call is stuck, or too many wait.

        Cancelled while it waits, the call is not made; cancelled later, it is made, and its answer dropped.
        """
        since = self._busy_since
        if since is not None and time.monotonic() - since >= self._stuck_s:
            raise Unavailable(f"its library has not come back from a call for {self._stuck_s:g} s or longer")
        if self._waiting.qsize() >= self._calls_max:
            raise Unavailable(f"{self._calls_max} calls wait for its library already")
        future: Future[T] = Future()
        self._waiting.put((future, call))
        return await asyncio.wrap_future(future)

    async def finish(self, call: Callable[[], None], *, wait_s: float) -> None:
        """Make `call` after all that wait, even if that is later than wait_s, after which this returns."""
        future: Future[None] = Future()
        # A future that runs cannot be cancelled: giving up the wait does not take the call back.
        future.set_running_or_notify_cancel()
        self._waiting.put((future, call))
        done, pending = await asyncio.wait({asyncio.wrap_future(future)}, timeout=wait_s)
        for waiter in pending:
            waiter.cancel()
        for waiter in done:
            waiter.result()

    def _work(self) -> None:
        while True:
            future, call = self._waiting.get()
            if future.running() or future.set_running_or_notify_cancel():
                self._busy_since = time.monotonic()
                _settle(future, call)
                self._busy_since = None
            # An idle thread would hold on to the last key for as long as it waits.
            del future, call


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - whoever waits gets it; the thread must live on
        future.set_exception(error)
