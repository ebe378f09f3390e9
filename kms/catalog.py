"""Finds the adapter for a key URI among the entry points of group `tokenbroker.kms`, and opens it under guard.

The only module that names adapters, and it names none: `local` is registered in `pyproject.toml` as any third party's
would be. What an adapter must do is in `kms.port`; how it is distrusted is in `kms.guard`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import EntryPoint, entry_points

from kms.errors import BadKey, KmsError
from kms.guard import CALL_DEADLINE_S, GuardedKms, ask
from kms.naming import naming, unread
from kms.port import Kms, KmsProvider

GROUP = "tokenbroker.kms"
"""The entry point group; the name of an entry is a URI scheme, its value a `kms.port.KmsProvider`."""
OPEN_DEADLINE_S = 30.0
"""How long opening or closing a key may take: deriving a key from a passphrase and logging in are slow on purpose."""
URI_CHARS_MAX = 2048
"""Longest key URI."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,31}):.+", re.ASCII)


def schemes() -> tuple[str, ...]:
    """The schemes that can be opened here, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


@asynccontextmanager
async def open_kms(uri: str, *, deadline_s: float = CALL_DEADLINE_S) -> AsyncIterator[Kms]:
    """The KMS key that `uri` names, guarded; closed when the context ends.

    deadline_s: how long each later call may take. Opening and closing have 30 s each.
    BadKey: no URI, an unknown scheme, an adapter that cannot be loaded, or what the adapter finds wrong with its key.
    Unavailable, Denied: the adapter could not be opened now, or failed with something unknown.
    An exception of the body passes unchanged; if closing then fails too, a note on that exception says so.
    RuntimeError: a task that the adapter keeps beside the key has failed, and ended the body; a bug.
    """
    with naming(unread(uri)):
        provider = _provider(uri)
    shown = _shown(uri)
    with naming(shown):
        opening, adapter = await ask(lambda: _enter(provider, uri), uri=shown, deadline_s=OPEN_DEADLINE_S)
    try:
        yield GuardedKms(adapter=adapter, uri=uri, deadline_s=deadline_s)
    except BaseException as error:
        try:
            await _close(opening, uri)
        except KmsError as failure:
            if isinstance(error, asyncio.CancelledError) and not _is_cancelled():
                # Passed on, it would end whoever holds the key in silence, and leave a key that nobody keeps.
                raise RuntimeError(f"{shown}: a task of its adapter has failed") from failure
            error.add_note(f"Besides, closing a KMS key failed: {failure}")
        raise
    else:
        await _close(opening, uri)


def _is_cancelled() -> bool:
    """Whether somebody wants this task to end."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def _enter(provider: KmsProvider, uri: str) -> tuple[AbstractAsyncContextManager[Kms], Kms]:
    opening = provider(uri)
    return opening, await opening.__aenter__()


async def _close(opening: AbstractAsyncContextManager[Kms], uri: str) -> None:
    # The adapter is not shown the exception that ends the body: it could swallow it, and it is none of its business.
    await ask(lambda: opening.__aexit__(None, None, None), uri=uri, deadline_s=OPEN_DEADLINE_S)


def _provider(uri: str) -> KmsProvider:
    """What opens keys of this URI's scheme. Raises BadKey."""
    if len(uri) > URI_CHARS_MAX:
        raise BadKey(f"a key URI has at most {URI_CHARS_MAX} characters, and this has {len(uri)}")
    match = _SCHEME.fullmatch(uri)
    if match is None:
        raise BadKey("not a key URI; it reads SCHEME:WHAT, for example local:/var/lib/tokenbroker/kms.key")
    found = {entry.value: entry for entry in entry_points(group=GROUP, name=match[1])}
    if not found:
        raise BadKey(
            f"no adapter for the scheme {match[1]!r}; installed: {', '.join(schemes()) or 'none'}. Others come with "
            f"packages that register an entry point in the group {GROUP}: install one into the broker's environment"
        )
    if len(found) > 1:
        raise BadKey(
            f"several adapters claim the scheme {match[1]!r}: {', '.join(sorted(found))}; uninstall all but one"
        )
    return _load(next(iter(found.values())))


def _load(entry: EntryPoint) -> KmsProvider:
    try:
        provider: KmsProvider = entry.load()
    except Exception as error:
        raise BadKey(f"the adapter {entry.value} cannot be loaded ({_kind(error)}); {_remedy(entry)}") from error
    return provider


def _kind(error: Exception) -> str:
    """What went wrong; of a missing module its name, which is no secret and says what to install."""
    missing = f" {error.name}" if isinstance(error, ImportError) and error.name else ""
    return f"{type(error).__name__}{missing}"


def _remedy(entry: EntryPoint) -> str:
    if not entry.extras or entry.dist is None:
        return "install what it depends on"
    return f"install what it depends on: pip install '{entry.dist.name}[{','.join(entry.extras)}]'"


def _shown(uri: str) -> str:
    """`uri` as errors of opening show it: one short line, without user-info and options, which may hold a secret."""
    if "@" in uri:
        return unread(uri)
    shown, question, _ = uri[:200].partition("?")
    shown += "?…" if question else ""
    return shown if shown.isprintable() else ascii(shown)
