"""The files of an export, and reading them back (docs/spec/audit.md, "Export"). Writing them is `broker.audit.export`.

export.json                     which logs, and whether these are all
vkey                            the verifier key
log-<n>/log.json                what is said about the log
log-<n>/checkpoint              its newest signed checkpoint
log-<n>/checkpoints             all of them, ascending, a blank line behind each
log-<n>/tile/entries/<N>[.p/W]  256 entries a file, named as C2SP tlog-tiles names entry bundles
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from broker.audit.encoding import ENTRY_BYTES_MAX
from broker.audit.errors import LogBroken
from broker.audit.source import Batch, LogFacts, unpack

FORMAT = "tokenbroker/audit-export/v1"
BUNDLE_ENTRIES = 256
BUNDLE_BYTES_MAX = BUNDLE_ENTRIES * (ENTRY_BYTES_MAX + 2)
JSON_BYTES_MAX = 16 * 1024 * 1024
_LINE_CHARS_MAX = 131_072
_PARAGRAPH_LINES_MAX = 200
_BUNDLE = re.compile(r"((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """export.json. `complete`: the export holds every log that the database had."""

    format: str
    cluster: str
    complete: bool
    logs: tuple[int, ...]


def bundle_path(index: int, entries: int) -> str:
    """Where bundle `index` lies below tile/entries; a partial one (fewer than 256 entries) says how many it holds."""
    digits = str(index)
    digits = digits.zfill((len(digits) + 2) // 3 * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return path if entries == BUNDLE_ENTRIES else f"{path}.p/{entries}"


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """The content of a file of at most `bytes_max` bytes. LogBroken: absent, unreadable, or larger."""
    try:
        with path.open("rb") as file:
            raw = file.read(bytes_max + 1)
    except OSError as error:
        raise LogBroken(f"cannot be read: {error.strerror}") from None
    if len(raw) > bytes_max:
        raise LogBroken(f"is larger than {bytes_max} bytes")
    return raw


def read_notes(path: Path) -> Iterator[str]:
    """The signed notes of a file, unverified: notes with blank lines between them, or JSON lines with a "note".

    Fragments that are no whole note (a write that was cut off) come out as they are, for the caller to judge.
    LogBroken: the file cannot be read, or a line or paragraph in it is longer than any note.
    """
    body: list[str] | None = None
    for paragraph in _paragraphs(path):
        if paragraph[0].startswith("{"):
            yield from map(_note_in_json, paragraph)
        elif body is not None and paragraph[0].startswith("\u2014 "):
            yield "\n".join([*body, "", *paragraph, ""])
            body = None
        else:
            if body is not None:
                yield "\n".join(body)
            body = paragraph
    if body is not None:
        yield "\n".join(body)


def _paragraphs(path: Path) -> Iterator[list[str]]:
    lines: list[str] = []
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            while line := file.readline(_LINE_CHARS_MAX):
                text = line.removesuffix("\n")
                if text:
                    lines.append(text)
                if len(line) == _LINE_CHARS_MAX or len(lines) > _PARAGRAPH_LINES_MAX:
                    raise LogBroken(f"{path.name} holds a line or paragraph longer than any note")
                if lines and (not text or text.startswith("{")):
                    yield lines
                    lines = []
    except OSError as error:
        raise LogBroken(f"{path.name} cannot be read: {error.strerror}") from None
    if lines:
        yield lines


class _Line(msgspec.Struct):
    note: str = ""


def _note_in_json(line: str) -> str:
    try:
        return msgspec.json.decode(line, type=_Line).note
    except msgspec.MsgspecError:
        return line


class ExportSource:
    """The logs in an export folder. Nothing in it is trusted; what cannot be read is a fault, found in `faults`."""

    def __init__(self, *, root: Path) -> None:
        self.root = root
        self.faults: list[str] = []

    async def logs(self) -> list[LogFacts]:
        """What log.json says, for each folder log-<n>. A folder whose log.json is unfit goes to `faults`."""
        found = []
        for folder in self.root.glob("log-*"):
            number = folder.name.removeprefix("log-")
            try:
                facts = msgspec.json.decode(read_bounded(folder / "log.json", JSON_BYTES_MAX), type=LogFacts)
            except (LogBroken, msgspec.MsgspecError, UnicodeDecodeError) as error:
                self.faults.append(f"log {number}: log.json is unfit: {error}")
                continue
            if str(facts.log) != number:
                self.faults.append(f"log {number}: its folder holds what was exported as log {facts.log}")
                continue
            found.append(facts)
        return sorted(found, key=lambda facts: facts.log)

    async def batches(self, log: int) -> AsyncIterator[Batch]:
        for index, (path, entries) in sorted(self._bundles(log).items()):
            first_seq = index * BUNDLE_ENTRIES
            name = f"bundle {bundle_path(index, entries)}"
            try:
                found = unpack(read_bounded(path, BUNDLE_BYTES_MAX), hollow=True)
            except LogBroken as error:
                yield Batch(first_seq, [], f"{name}: {error.message}")
                continue
            if len(found) == entries:
                yield Batch(first_seq, found)
            else:
                yield Batch(first_seq, [], f"{name}: it holds {len(found)} entries, its name says {entries}")

    async def notes(self, log: int) -> AsyncIterator[tuple[int | None, str]]:
        path = self._folder(log) / "checkpoints"
        if path.exists():
            for note in read_notes(path):
                yield None, note

    async def newest_note(self, log: int) -> tuple[int | None, str] | None:
        path = self._folder(log) / "checkpoint"
        if not path.exists():
            return None
        return None, read_bounded(path, _LINE_CHARS_MAX).decode(errors="replace")

    def _folder(self, log: int) -> Path:
        return self.root / f"log-{log}"

    def _bundles(self, log: int) -> dict[int, tuple[Path, int]]:
        """Bundle number → file and how many entries its name promises; of several, the one that promises most."""
        top = self._folder(log) / "tile" / "entries"
        found: dict[int, tuple[Path, int]] = {}
        for path in top.rglob("*"):
            match = _BUNDLE.fullmatch(path.relative_to(top).as_posix())
            if match is None or not path.is_file():
                continue
            index = int(match[1].replace("x", "").replace("/", ""))
            entries = int(match[2]) if match[2] else BUNDLE_ENTRIES
            if index not in found or found[index][1] < entries:
                found[index] = (path, entries)
        return found
