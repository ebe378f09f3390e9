"""The laws of `check`, which are the same for rotators and issuers: it looks at a policy before it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from broker.upstream.conformance.verdict import LawBroken, require
from broker.upstream.conformance.world import BadTerms, World
from broker.upstream.errors import BadSettings

_NONSENSE = (
    "",
    " ",
    "\0",
    "x" * 4096,
    "0",
    "-1",
    "true",
    "https://",
    "http://[",
    "file:///etc/passwd",
    "\ud800",
    "é,ü",
)


class Checking(Protocol):
    """What has a `check`."""

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """As the port says."""
        ...


def check_takes(adapter: Checking, world: World) -> None:
    """LawBroken: `check` refuses the world's own policy, or raises anything but BadSettings for nonsense in it."""
    tokens = dict.fromkeys(world.credentials, "laws/credential")
    try:
        adapter.check(world.settings, tokens)
    except BadSettings as error:
        raise LawBroken(f"`check` refuses a policy that works: {error}") from error
    for name in world.settings:
        for nonsense in _NONSENSE:
            _refused_at_most(adapter, {**world.settings, name: nonsense}, tokens, f"{nonsense[:20]!r} as {name}")


def check_refuses(adapter: Checking, bad: BadTerms) -> None:
    """LawBroken: `check` takes it, or does not say which name is wrong."""
    try:
        adapter.check(bad.settings, bad.credentials)
    except BadSettings as error:
        require(bad.names in error.message, f"`check` does not name {bad.names}: {error.message}")
        return
    raise LawBroken(f"`check` takes a policy whose {bad.names} is wrong")


def _refused_at_most(adapter: Checking, settings: Mapping[str, str], tokens: Mapping[str, str], what: str) -> None:
    try:
        adapter.check(settings, tokens)
    except BadSettings:
        return
    except Exception as error:
        raise LawBroken(f"`check` raised {type(error).__name__} for {what}, and not BadSettings") from error
