"""Find the storage adapter that a URL asks for, among those installed.

Adapters announce themselves as entry points in the group `tokenbroker.storage`: the name is the URL's scheme, the
object a function `(url: str) -> AbstractAsyncContextManager[Storage]`. What a URL means behind its scheme is theirs.
Those that can be filled with another database's records do so too in the group `tokenbroker.storage.loading`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast
from urllib.parse import urlsplit

from storage.errors import Unreachable
from storage.port import Loading, Storage

GROUP = "tokenbroker.storage"
LOADING_GROUP = "tokenbroker.storage.loading"

Open = Callable[[str], AbstractAsyncContextManager[Storage]]
Load = Callable[[str, str], AbstractAsyncContextManager[Loading]]


def adapters(group: str = GROUP) -> Mapping[str, EntryPoint]:
    """The installed adapters by URL scheme; none of them is imported yet."""
    return {entry.name: entry for entry in entry_points(group=group)}


def shown_url(url: str) -> str:
    """The URL as people, programs and logs may see it: without a password, and without options."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    shown = parts._replace(netloc=f"{user.partition(':')[0]}{at}{hosts}", query="", fragment="").geturl()
    return shown if parts.netloc else url.partition("?")[0]


def open_storage(url: str) -> AbstractAsyncContextManager[Storage]:
    """What the adapter for the URL's scheme opens; entering it may raise any `storage.errors.Refused` or Unavailable.

    Unreachable: no adapter for that scheme is installed, or its own libraries are missing.
    """
    return cast(Open, _loaded(url, GROUP))(url)


def open_loading(url: str, source: str) -> AbstractAsyncContextManager[Loading]:
    """A database to be filled (`storage.port.Loading`), which is empty, or was begun to be filled.

    Unreachable: as `open_storage`, or the adapter cannot be filled. Refused: the database holds something else.
    """
    return cast(Load, _loaded(url, LOADING_GROUP))(url, source)


def _loaded(url: str, group: str) -> Any:
    """The function that an adapter announces in the group. Unreachable: see above."""
    scheme = url.partition(":")[0]
    known = adapters(group)
    entry = known.get(scheme)
    if entry is None and group != GROUP and scheme in adapters():
        raise Unreachable(
            f"the storage adapter {scheme!r} cannot be filled; those that can: {', '.join(sorted(known))}"
        )
    if entry is None:
        names = ", ".join(sorted(known)) or "none"
        raise Unreachable(
            f"no storage adapter for the scheme {scheme[:32]!r} of storage.url; installed: {names}. "
            "More come with extras, such as: pip install 'tokenbroker[postgres]'"
        )
    try:
        return entry.load()
    except ImportError as error:
        raise Unreachable(
            f"the storage adapter {scheme!r} needs {error.name or 'a library'}, which is not installed; "
            f"see its extra: pip install 'tokenbroker[{scheme}]'"
        ) from None
