"""Which stage each version of a token gets when one becomes current or is destroyed. Pure; storing is `tokens`'s.

pending ──▶ current ──▶ previous ──▶ retired        each promotion moves the others one step on
    any but current ──▶ destroyed                   (current too, while the token is disabled); for good
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from broker.admin.errors import InUse
from broker.errors import Gone
from storage.records import TokenRecord, VersionRecord
from storage.records.tokens import Stage


def step_down(others: Iterable[VersionRecord]) -> tuple[VersionRecord, ...]:
    """The updates of the versions that stop being current (→ previous) and previous (→ retired)."""
    further: dict[Stage, Stage] = {"current": "previous", "previous": "retired"}
    return tuple(restaged(version, further[version.stage]) for version in others if version.stage in further)


def restaged(version: VersionRecord, stage: Stage) -> VersionRecord:
    """The update that moves a version to a stage. `destroyed` empties it: the sealed value is gone for good.

    It names no data key then, so that none is kept for its sake.
    """
    if stage == "destroyed":
        return msgspec.structs.replace(version, rev=version.rev + 1, stage=stage, data_key="", sealed=b"")
    return msgspec.structs.replace(version, rev=version.rev + 1, stage=stage)


def check_promotable(version: VersionRecord) -> None:
    """Gone: a destroyed version has no value left to make current."""
    if version.stage == "destroyed":
        raise Gone(f"version {version.version} of {version.token} is destroyed; put the value again")


def check_destroyable(token: TokenRecord, version: VersionRecord) -> None:
    """InUse: it is current and workers may lease it. Gone: it is destroyed already."""
    if version.stage == "destroyed":
        raise Gone(f"version {version.version} of {version.token} is destroyed already")
    if version.version == token.current and not token.disabled:
        raise InUse(
            f"version {version.version} of {version.token} is current; promote another one or disable the token first"
        )
