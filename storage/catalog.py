"""Find the storage adapter that a URL asks for, among those installed.

Adapters announce themselves as entry points in the group `tokenbroker.storage`: the name is the URL's scheme, the
object a function `(url: str) -> AbstractAsyncContextManager[Storage]`. What a URL means behind its scheme is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from storage.errors import Unreachable
from storage.port import Storage

GROUP = "tokenbroker.storage"

Open = Callable[[str], AbstractAsyncContextManager[Storage]]


def adapters() -> Mapping[str, EntryPoint]:
    """The installed adapters by URL scheme; none of them is imported yet."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def open_storage(url: str) -> AbstractAsyncContextManager[Storage]:
    """What the adapter for the URL's scheme opens; entering it may raise any `storage.errors.Refused` or Unavailable.

    Unreachable: no adapter for that scheme is installed, or its own libraries are missing.
    """
    scheme = url.partition(":")[0]
    known = adapters()
    entry = known.get(scheme)
    if entry is None:
        names = ", ".join(sorted(known)) or "none"
        raise Unreachable(
            f"no storage adapter for the scheme {scheme[:32]!r} of storage.url; installed: {names}. "
            "More come with extras, such as: pip install 'tokenbroker[postgres]'"
        )
    try:
        opener = cast(Open, entry.load())
    except ImportError as error:
        raise Unreachable(
            f"the storage adapter {scheme!r} needs {error.name or 'a library'}, which is not installed; "
            f"see its extra: pip install 'tokenbroker[{scheme}]'"
        ) from None
    return opener(url)
