"""Finds rotators and issuers by name among the entry points, and opens them. Names none itself.

What an adapter must do is in `broker.upstream.port`. Asking it, with a deadline, is its callers' business.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from broker.upstream.errors import BadSettings
from broker.upstream.port import Issuer, Rotator, Site

ROTATORS: Final = "tokenbroker.rotators"
ISSUERS: Final = "tokenbroker.issuers"
"""The entry point groups; the name of an entry is what a policy names, its value a provider (`port`)."""


def names(group: str) -> tuple[str, ...]:
    """What is installed here, sorted."""
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))


def open_rotator(name: str, site: Site) -> AbstractAsyncContextManager[Rotator]:
    """The rotator of that name. BadSettings: there is none, several claim the name, or it cannot be loaded."""
    opened: AbstractAsyncContextManager[Rotator] = _provider(ROTATORS, "rotator", name)(site)
    return opened


def open_issuer(name: str, site: Site) -> AbstractAsyncContextManager[Issuer]:
    """The issuer of that name. BadSettings: as above."""
    opened: AbstractAsyncContextManager[Issuer] = _provider(ISSUERS, "issuer", name)(site)
    return opened


def _provider(group: str, what: str, name: str) -> Any:
    found = {entry.value: entry for entry in entry_points(group=group, name=name)}
    if not found:
        raise BadSettings(
            f"there is no {what} {name[:64]!r}; installed: {', '.join(names(group)) or 'none'}. Others come with "
            f"packages that register an entry point in the group {group}"
        )
    if len(found) > 1:
        raise BadSettings(
            f"several packages claim the {what} {name}: {', '.join(sorted(found))}; uninstall all but one"
        )
    return _load(what, next(iter(found.values())))


def _load(what: str, entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:
        remedy = "install what it depends on"
        if entry.extras and entry.dist is not None:
            remedy += f": pip install '{entry.dist.name}[{','.join(entry.extras)}]'"
        raise BadSettings(f"the {what} {entry.name} cannot be loaded ({type(error).__name__}); {remedy}") from error
