"""A few reading connections, each with its thread, so that no read waits behind a commit's trip to the disk.

What is read is `reader`'s business.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from storage.errors import Unavailable
from storage.sqlite.failures import from_sqlite
from storage.sqlite.thread import ThreadedConnection

READERS = 2
"""Connections for reading: a long page on one leaves the other to single records."""

READS_MAX = 4096
"""Reads that may wait or run at once; the next one is refused with Unavailable."""

P = ParamSpec("P")
T = TypeVar("T")


class Readers:
    """Runs reading functions on whichever connection has the least to do. answer_s: the time for one read."""

    def __init__(self, *, connections: Sequence[ThreadedConnection], path: Path, answer_s: float) -> None:
        self._connections = connections
        self._path = path
        self._answer_s = answer_s
        self._pending = [0] * len(connections)
        self._closed = False

    async def run(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The function's result. Unavailable: closed, `READS_MAX` reads wait, or no answer within `answer_s`."""
        if self._closed:
            raise Unavailable("storage is closed")
        if sum(self._pending) >= READS_MAX:
            raise Unavailable(f"{READS_MAX} reads wait for the disk already; retry later")
        at = self._pending.index(min(self._pending))
        future = self._connections[at].submit(function, *args, **kwargs)
        self._pending[at] += 1
        try:
            async with asyncio.timeout(self._answer_s):
                return await future
        except TimeoutError:
            raise Unavailable(f"the disk has not answered for {self._answer_s:g} s; retry later") from None
        except sqlite3.Error as error:
            raise from_sqlite(error, self._path) from None
        finally:
            self._pending[at] -= 1

    def close(self) -> None:
        """Refuse further reads. The connections are closed by who opened them."""
        self._closed = True
