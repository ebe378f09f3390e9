"""Which stage each version of a token gets when one becomes current, is retired or is destroyed. Pure; storing is
`tokens`'s.

pending ──▶ current ──▶ previous ──▶ retired        each promotion moves the others one step on
pending, previous ──▶ retired                       by hand; any but a destroyed version can be promoted (again)
                                                    or rolled out; what was rolled out and taken back is retired too
    any but current ──▶ destroyed                   (current too, while the token is disabled); for good

So two versions are live at most: current, and previous.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from broker.admin.errors import InUse, NoFormer, RolloutRunning
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


def check_not_rolling(token: TokenRecord) -> None:
    """RolloutRunning: a version is on its way to some of the workers, so its stages must not move under it."""
    if token.rollout:
        raise RolloutRunning(
            f"version {token.rollout} of {token.name} is being rolled out; wait for its end, or take it back with "
            f"`token rollout abort {token.name}`"
        )


def check_promotable(version: VersionRecord) -> None:
    """Gone: a destroyed version has no value left to make current."""
    if version.stage == "destroyed":
        raise Gone(f"version {version.version} of {version.token} is destroyed; put the value again")


def check_retirable(token: TokenRecord, version: VersionRecord) -> None:
    """InUse: it is current. RolloutRunning: it is being rolled out. Gone: it is destroyed."""
    if version.stage == "destroyed":
        raise Gone(f"version {version.version} of {version.token} is destroyed; there is nothing left to retire")
    if version.version == token.current:
        raise InUse(f"version {version.version} of {version.token} is current; promote another one first")
    if version.version == token.rollout:
        check_not_rolling(token)


def former(token: TokenRecord, live: Iterable[VersionRecord]) -> VersionRecord:
    """The version to roll back to among those that are current or previous. NoFormer: there is none.

    Back means to a lower number: whoever rolls back once more, because the first answer was lost, must not arrive at
    the version that was rolled back from.
    """
    previous = next((version for version in live if version.version == token.previous), None)
    stands = f"version {token.current} is current" if token.current else "none is current"
    if previous is None:
        raise NoFormer(f"token {token.name} has no previous version to roll back to; {stands}, and stays so")
    if previous.version > token.current > 0:
        raise NoFormer(
            f"token {token.name} is rolled back already: {stands}, and its previous version {previous.version} is a "
            f"later one; to go there, promote {previous.version}"
        )
    return previous


def check_destroyable(token: TokenRecord, version: VersionRecord) -> None:
    """InUse: it is current and workers may lease it. Gone: it is destroyed already.

    RolloutRunning: it is being rolled out, or is what a rollout would be taken back to.
    """
    if version.stage == "destroyed":
        raise Gone(f"version {version.version} of {version.token} is destroyed already")
    if version.version == token.current and not token.disabled:
        raise InUse(
            f"version {version.version} of {version.token} is current; promote another one or disable the token first"
        )
    if version.version in {token.current, token.rollout}:
        check_not_rolling(token)
