"""Copies logs out of a database into a folder that anybody can verify without it.

The layout is `broker.audit.bundles`. Nothing is verified on the way: damage is exported as it was found, for
`broker.audit.verify` to name.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from broker.audit.bundles import BUNDLE_ENTRIES, FORMAT, Manifest, bundle_path
from broker.audit.checkpoint import Origin, key_name
from broker.audit.note import vkey_of
from broker.audit.source import Batch, LogFacts, StorageSource
from broker.errors import Conflict, NotFound
from storage.port import Storage

HOLE_ENTRIES_MAX = 65_536
"""A longer run of missing entries ends the export of its log; shorter ones are written as entries without bytes."""

WRITE_ENTRIES = 16 * BUNDLE_ENTRIES
"""So many entries are gathered before a thread writes them out."""


async def export(storage: Storage, out: Path, logs: Sequence[int] | None = None) -> Manifest:
    """Write the named logs (None: all) as they are at this moment into the folder `out`, which appears whole or not.

    May run while the broker serves. Folders have mode 0700, files 0600.
    Conflict: `out` exists and is not an empty folder. NotFound: there is no such log, or none at all.
    Unavailable: storage cannot serve. OSError: the disk cannot be written.
    """
    _refuse_occupied(out)
    source = StorageSource(storage=storage)
    known = {facts.log: facts for facts in await source.logs()}
    wanted = sorted(known) if logs is None else sorted(set(logs))
    if not wanted or not set(wanted) <= set(known):
        raise NotFound(f"no audit log {sorted(set(wanted) - set(known)) or ''} to export".replace("  ", " "))
    newest = known[wanted[-1]]
    cluster = Origin.parse(newest.origin).cluster
    manifest = Manifest(format=FORMAT, cluster=cluster, complete=set(wanted) == set(known), logs=tuple(wanted))
    with _appearing(out) as folder:
        for number in wanted:
            await _export_log(source, known[number], folder / f"log-{number}")
        _append(folder / "vkey", vkey_of(key_name(cluster), newest.public_key).encode() + b"\n")
        _append(folder / "export.json", _json(manifest))
    return manifest


def _refuse_occupied(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Conflict(f"{out.name} exists and is not an empty folder; name another one")


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name at the end, or vanishes on failure."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))  # mode 0700
    try:
        yield folder
        folder.rename(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


async def _export_log(source: StorageSource, facts: LogFacts, folder: Path) -> None:
    """Read the newest checkpoint first: everything it vouches for was stored by then, so what lacks is a finding."""
    writer = _BundleWriter(folder / "tile" / "entries")
    newest = await source.newest_note(facts.log)
    ceiling = newest[0] or 0 if newest is not None else 0
    async for batch in source.batches(facts.log):
        writer.add(batch)
        if writer.waiting >= WRITE_ENTRIES:
            await asyncio.to_thread(writer.write)
        if writer.ended:
            break
    await asyncio.to_thread(writer.finish)
    notes = _NoteWriter(folder)
    async for size, note in source.notes(facts.log):
        if (size or 0) > max(ceiling, writer.entries):
            break
        notes.add(note)
        if len(notes.waiting) >= BUNDLE_ENTRIES:
            await asyncio.to_thread(notes.write)
    await asyncio.to_thread(notes.finish)
    told = msgspec.structs.replace(facts, entries=writer.entries, checkpoints=notes.count, faults=tuple(writer.faults))
    _append(folder / "log.json", _json(told))


class _BundleWriter:
    """Cuts a stream of batches into bundles of 256 entries. `write` and `finish` block on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[bytes] = []
        self._written = 0
        self.faults: list[str] = []
        self.ended = False

    @property
    def entries(self) -> int:
        """How many entries were added, those without bytes included."""
        return self._written * BUNDLE_ENTRIES + len(self._waiting)

    @property
    def waiting(self) -> int:
        """How many entries are not written yet; the caller calls `write` before there are many."""
        return len(self._waiting)

    def add(self, batch: Batch) -> None:
        """Append a batch. What cannot be placed becomes a fault."""
        hole = batch.first_seq - self.entries
        if batch.fault:
            self.faults.append(f"entry {batch.first_seq}: {batch.fault}")
            return
        if hole < 0:
            self.faults.append(f"entry {batch.first_seq}: two blocks hold entries of this number")
            return
        if hole > HOLE_ENTRIES_MAX:
            self.faults.append(f"entries {self.entries} to {batch.first_seq - 1} are missing; the rest was left out")
            self.ended = True
            return
        self._waiting.extend([b""] * hole)
        self._waiting.extend(batch.entries)

    def write(self) -> None:
        """Write every whole bundle."""
        at = 0
        while len(self._waiting) - at >= BUNDLE_ENTRIES:
            self._put(self._waiting[at : at + BUNDLE_ENTRIES])
            at += BUNDLE_ENTRIES
            self._written += 1
        del self._waiting[:at]

    def finish(self) -> None:
        """Write what waits, the last bundle as a partial one."""
        self.write()
        if self._waiting:
            self._put(self._waiting)

    def _put(self, entries: Sequence[bytes]) -> None:
        path = self._folder / bundle_path(self._written, len(entries))
        _append(path, b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries))


class _NoteWriter:
    """Appends signed notes to a log's checkpoints file. `write` and `finish` block on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._newest = ""
        self.waiting: list[str] = []
        self.count = 0

    def add(self, note: str) -> None:
        """Take a note; the caller writes before many wait."""
        self.waiting.append(note)
        self._newest = note
        self.count += 1

    def write(self) -> None:
        """Write what waits."""
        _append(self._folder / "checkpoints", "".join(f"{note}\n" for note in self.waiting).encode())
        self.waiting.clear()

    def finish(self) -> None:
        """Write what waits, and the newest note once more, alone, where tools for tlog-tiles look for it."""
        if self.count:
            self.write()
            _append(self._folder / "checkpoint", self._newest.encode())


def _append(path: Path, content: bytes) -> None:
    _make_folder(path.parent)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as file:
        file.write(content)


def _make_folder(path: Path) -> None:
    """Like mkdir with parents, but each of them private: mkdir gives the mode to the last one only."""
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(mode=0o700)


def _json(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
