"""The storage port in memory, for tests, demos and trying things out: the same laws, nothing survives the process.

Handles that open the same name share one store. A store ends with its last handle, so "reopening" finds what was
written only while another handle is open. Use it from one event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from storage import records
from storage.errors import Refused, Unfinished, Unreachable
from storage.memory.loading import MemoryLoading
from storage.memory.state import State
from storage.memory.storage import MemoryStorage

__all__ = ["load_memory", "open_memory"]

# The one module-level registry here: a name must mean the same store to everyone in the process, which is all that a
# name is for. It holds on to nothing.
_NAMED: WeakValueDictionary[str, State] = WeakValueDictionary()


@asynccontextmanager
async def open_memory(url: str = "memory:") -> AsyncIterator[MemoryStorage]:
    """Open `memory:` (an empty store of one's own) or `memory:NAME` (shared by all who open that name).

    Unreachable: the URL is not of that form. Unfinished: it is being filled. After leaving, calls get Unavailable.
    """
    state = _state(url)
    if state.loading is not None:
        raise Unfinished(f"{url}: {Unfinished.__doc__}")
    storage = MemoryStorage(state=state)
    try:
        yield storage
    finally:
        storage.close()


@asynccontextmanager
async def load_memory(url: str, source: str) -> AsyncIterator[MemoryLoading]:
    """Open the store that `url` names to be filled; see `storage.port.Loading` and `open_memory`."""
    state = _state(url)
    if state.loading is None and state.is_used:
        raise Refused(f"{url} was used already; name another store")
    if state.loading != source:
        state.begin_loading(source)
    storage = MemoryLoading(state=state)
    try:
        yield storage
    finally:
        storage.close()


def _state(url: str) -> State:
    scheme, _, name = url.partition(":")
    if scheme != "memory" or name.startswith("/"):
        raise Unreachable("storage.url must be memory: or memory:NAME")
    state = _NAMED.get(name) if name else None
    if state is None:
        state = State(records.ALL)
        if name:
            _NAMED[name] = state
    return state
