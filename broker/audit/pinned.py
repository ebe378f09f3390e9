"""What a pin says of the authority tables, and whether manifests have fallen behind it. Pure.

Where the newest pins are is `broker.audit.lookback`; when they are written is `broker.authority.pins`. That a manifest
is rightful by itself (its MAC, its rows) is judged in `broker.authority`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from broker.audit.entries import AuthorityPinned
from broker.audit.errors import EntryBroken
from storage.records import ManifestRecord

EVENT: Final = b'{"event":"authority.pinned",'
"""How the canonical bytes of every pin begin, and of no other entry."""
_STATE: Final = re.compile(r"([a-z_]{1,64}) (0|[1-9][0-9]{0,18}) (0|[1-9][0-9]{0,18}) ([0-9a-f]{64})")


class State(NamedTuple):
    """One table as a pin has it. digest: in hexadecimal."""

    table: str
    rev: int
    rows: int
    digest: str


class Pin(NamedTuple):
    """A pin where it stands. signed: a verified checkpoint covers it."""

    log: int
    seq: int
    entry: AuthorityPinned
    signed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Lapse:
    """A table that is behind its pin. found: its revision, 0 without a manifest; if equal, another state."""

    table: str
    pinned: int
    found: int
    place: str

    @property
    def text(self) -> str:
        """The sentence for operators, without a remedy."""
        if self.found == self.pinned:
            return (
                f"table {self.table} is not as it was: another state of its revision {self.pinned} is pinned in "
                f"{self.place}"
            )
        stands = f"is at revision {self.found}" if self.found else "has no manifest"
        return f"table {self.table} was put back: it {stands}, and {self.place} pins revision {self.pinned}"


def text_of(manifest: ManifestRecord) -> str:
    """A manifest as a pin names it."""
    return f"{manifest.kind} {manifest.rev} {manifest.count} {manifest.digest.hex()}"


def states_of(entry: AuthorityPinned) -> tuple[State, ...]:
    """The tables that a pin names. EntryBroken: it does not name them as `text_of` does."""
    return tuple(_state(text) for text in entry.manifests)


def lapses(pins: Iterable[Pin], manifests: Iterable[ManifestRecord]) -> list[Lapse]:
    """Each table that is behind one of the pins, once, with the newest revision that is pinned of it.

    A table may be ahead of its pins: a pin follows a change within a second. EntryBroken: see `states_of`.
    """
    known = {manifest.kind: manifest for manifest in manifests}
    found: dict[str, Lapse] = {}
    for pin in pins:
        for state in states_of(pin.entry):
            lapse = _lapse(pin, state, known)
            if lapse is not None and (state.table not in found or found[state.table].pinned < state.rev):
                found[state.table] = lapse
    return [found[table] for table in sorted(found)]


def _lapse(pin: Pin, state: State, manifests: Mapping[str, ManifestRecord]) -> Lapse | None:
    manifest = manifests.get(state.table)
    rev = 0 if manifest is None else manifest.rev
    if manifest is not None and (rev > state.rev or text_of(manifest) == " ".join(map(str, state))):
        return None
    place = f"entry {pin.seq} of audit log {pin.log} ({pin.entry.at:%Y-%m-%dT%H:%M:%SZ})"
    return Lapse(table=state.table, pinned=state.rev, found=rev, place=place)


def _state(text: str) -> State:
    matched = _STATE.fullmatch(text)
    if matched is None:
        raise EntryBroken("a pin names a table by its name, revision, number of rows and digest")
    return State(matched[1], int(matched[2]), int(matched[3]), matched[4])
