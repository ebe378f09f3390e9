"""The export: what lies where, that a stranger can read it, and every way of tampering with its files."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.audit.anchors import FileAnchor
from broker.audit.bundles import bundle_path
from broker.audit.export import export
from broker.audit.note import Signer
from broker.audit.verify import verify_export
from broker.errors import BadRequest, Conflict, NotFound

FORGER = Signer(name="cl-test/audit", seed=bytes([66]) * 32)
Change = Callable[[Path], None]


@pytest.fixture
async def out(*, history: Any, opening: Any, granted: Any, signed: Any, storage: Any, tmp_path: Path) -> Path:
    """The three logs of the history, and a fourth of 602 entries: two whole bundles and a partial one."""
    await history()
    async with opening() as journal:
        for first in range(34, 634, 100):
            await journal.commit(granted(100, first))
            await signed(journal)
    folder = tmp_path / "export"
    await export(storage, folder)
    return folder


def tree(root: Path) -> list[str]:
    """All files, in order."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_layout(out: Path, vkey: str) -> None:
    """Files lie where the specification says, private to their owner, and the key is beside them."""
    logs = (1, 2, 3, 4)
    assert [name for name in tree(out) if "tile" not in name] == [
        "export.json",
        *(f"log-{log}/{name}" for log in logs for name in ("checkpoint", "checkpoints", "log.json")),
        "vkey",
    ]
    assert [name for name in tree(out) if "tile" in name] == [
        "log-1/tile/entries/000.p/23",
        "log-2/tile/entries/000.p/9",
        "log-3/tile/entries/000.p/7",
        "log-4/tile/entries/000",
        "log-4/tile/entries/001",
        "log-4/tile/entries/002.p/90",
    ]
    assert (out / "vkey").read_text() == vkey + "\n"
    assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in [out, *out.rglob("*")] if path.is_dir()} == {0o700}
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_bundle_names_are_those_of_tlog_tiles() -> None:
    """The example of the C2SP specification, and its partial form."""
    assert bundle_path(1234067, 256) == "x001/x234/067"
    assert bundle_path(0, 1) == "000.p/1"
    assert bundle_path(1000, 256) == "x001/000"


def test_a_stranger_verifies_a_log(out: Path, vkey: str) -> None:
    """Thirty lines that share nothing with the broker reach the signed root of the exported entries."""
    name, _, encoded = vkey.partition("+")[0], *vkey.partition("+")[2].split("+", 1)
    text, _, tail = (out / "log-4" / "checkpoint").read_text().rpartition("\n\n")
    signature = base64.b64decode(tail.split(" ")[2])
    Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded)[1:]).verify(signature[4:], text.encode() + b"\n")
    origin, size, root = text.split("\n")[:3]
    assert (name, origin, size) == ("cl-test/audit", "cl-test/audit/one/4", "602")
    leaves = []
    for path in sorted((out / "log-4" / "tile" / "entries").rglob("*")):
        raw = path.read_bytes() if path.is_file() else b""
        while raw:
            length = int.from_bytes(raw[:2], "big")
            leaves.append(sha256(b"\x00" + raw[2 : 2 + length]).digest())
            raw = raw[2 + length :]

    def head(nodes: list[bytes]) -> bytes:
        if len(nodes) == 1:
            return nodes[0]
        split = 1 << (len(nodes) - 1).bit_length() - 1
        return sha256(b"\x01" + head(nodes[:split]) + head(nodes[split:])).digest()

    assert base64.b64encode(head(leaves)).decode() == root


def test_an_honest_export_has_no_problems(out: Path, vkey: str) -> None:
    """What was exported verifies with the pinned key; the crash in it is a note."""
    report = verify_export(out, vkey)
    assert (report.ok, report.problems, report.logs, report.entries) == (True, [], 4, 641)
    assert report.notes == [
        "log 2: entries 7 to 8 are under no checkpoint of this log; the next log's first entry covers them",
        "log 2: it was not closed in order; a crash ended it",
    ]


def test_without_a_pinned_key_the_report_says_so(out: Path) -> None:
    """The key that lies in the export is used, and its worth is told."""
    report = verify_export(out)
    assert report.ok
    assert report.notes[0].startswith("no verifier key was given")


def put(name: str, content: str | bytes) -> Change:
    """Overwrite a file."""

    def change(root: Path) -> None:
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def edit(name: str, old: bytes, new: bytes) -> Change:
    """Replace bytes that are there in a file."""

    def change(root: Path) -> None:
        raw = (root / name).read_bytes()
        assert old in raw
        (root / name).write_bytes(raw.replace(old, new, 1))

    return change


def drop(name: str) -> Change:
    """Remove a file."""
    return lambda root: (root / name).unlink()


def drop_notes(root: Path) -> None:
    """Remove every checkpoint of log 4."""
    for name in ("checkpoint", "checkpoints"):
        (root / "log-4" / name).unlink()


def swap(one: str, two: str) -> Change:
    """Exchange two files or folders; the second need not exist."""

    def change(root: Path) -> None:
        (root / one).rename(root / "aside")
        if (root / two).exists():
            (root / two).rename(root / one)
        (root / "aside").rename(root / two)

    return change


def cut_newest(root: Path) -> None:
    """Pretend that an older checkpoint is the newest."""
    first = (root / "log-4" / "checkpoints").read_text().split("\n\n\u2014")[0]
    notes = (root / "log-4" / "checkpoints").read_text()
    end = notes.index("\n\n", notes.index(first) + len(first) + 2) + 1
    (root / "log-4" / "checkpoint").write_text(notes[:end])


def forge(root: Path) -> None:
    """Sign the newest head of log 3 with another key."""
    text = (root / "log-3" / "checkpoint").read_text().rpartition("\n\n")[0] + "\n"
    old = (root / "log-3" / "checkpoint").read_text()
    notes = (root / "log-3" / "checkpoints").read_text()
    (root / "log-3" / "checkpoint").write_text(FORGER.sign(text))
    (root / "log-3" / "checkpoints").write_text(notes.replace(old, FORGER.sign(text)))


FULL = "log-4/tile/entries/001"
TAMPERINGS: dict[str, tuple[Change, str]] = {
    "a byte of an entry": (
        edit(FULL, b'"lease-300"', b'"lease-301"'),
        (
            "log 4: entries 201 to 300 are not what was signed (the checkpoint of 301 entries has another root; "
            "the one of 201 still fits)"
        ),
    ),
    "a byte of a length": (
        edit(FULL, b"\x00", b"\x01"),
        "log 4: entry 256 and those stored with it cannot be read: bundle 001: ",
    ),
    "a bundle": (drop(FULL), "log 4: entries 256 to 511 are missing"),
    "the last bundle": (
        drop("log-4/tile/entries/002.p/90"),
        "log 4: entries 512 to 601 are missing at its end: a signed checkpoint vouches for 602 entries",
    ),
    "two bundles change places": (
        swap("log-4/tile/entries/000", FULL),
        "log 4, entry 0: a log begins with one log.opened entry, and has no other",
    ),
    "a bundle cut short": (
        put(FULL, b"\x00\x01x"),
        "log 4: entry 256 and those stored with it cannot be read: bundle 001: it holds 1 entries, its name says 256",
    ),
    "a bundle under a smaller name": (
        swap("log-1/tile/entries/000.p/23", "log-1/tile/entries/000.p/22"),
        "log 1: entry 0 and those stored with it cannot be read: bundle 000.p/22: it holds 23 entries",
    ),
    "a log": (lambda root: shutil.rmtree(root / "log-2"), "log 2: export.json names it, but it is not here"),
    "two logs change places": (swap("log-1", "log-3"), "log 1: its folder holds what was exported as log 3"),
    "two logs' entries change places": (
        swap("log-1/tile", "log-3/tile"),
        "log 3, entry 0: it continues no log, its row says cl-test/audit/one/2",
    ),
    "two logs' checkpoints change places": (
        swap("log-1/checkpoints", "log-3/checkpoints"),
        "log 1: it was signed for another log, cl-test/audit/one/3",
    ),
    "the checkpoints of a log": (
        drop_notes,
        "log 4: 8 checkpoints were exported, 0 are here",
    ),
    "an older checkpoint as the newest": (
        cut_newest,
        "log 4: its file checkpoint is not the newest one of its file checkpoints",
    ),
    "a checkpoint of another key": (
        forge,
        "log 3: a checkpoint (the one after 6 entries) does not verify: not signed by cl-test/audit with key id",
    ),
    "a changed checkpoint": (
        edit("log-4/checkpoints", b"\n301\n", b"\n299\n"),
        "log 4: a checkpoint (the one after 201 entries) does not verify: the signature of cl-test/audit does not fit",
    ),
    "what the opening says": (
        edit("log-3/tile/entries/000.p/7", b'"previous_unsigned":2', b'"previous_unsigned":1'),
        "log 3: entry 0 is not what was signed (the checkpoint of 1 entries has another root; the one of 0 still fits)",
    ),
    "log.json": (put("log-1/log.json", "{"), "log 1: log.json is unfit: Input data was truncated"),
    "the number of entries in log.json": (
        edit("log-2/log.json", b'"entries": 9', b'"entries": 12'),
        "log 2: 12 entries were exported, 9 are here",
    ),
    "export.json": (put("export.json", "[]"), "export.json is unfit: Expected `object`, got `array`"),
    "export.json of another format": (
        edit("export.json", b"export/v1", b"export/v9"),
        "export.json is of format tokenbroker/audit-export/v9",
    ),
    "export.json of another cluster": (
        edit("export.json", b"cl-test", b"cl-else"),
        "export.json is of cluster cl-else, the key is of cl-test/audit",
    ),
    "the key": (put("vkey", FORGER.vkey), "the export's vkey is not the key that was given"),
    "a key that is none": (put("vkey", "\xff"), "the export's vkey is unfit"),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_tampering_is_named(out: Path, vkey: str, what: str) -> None:
    """Each way of changing the files is reported with the log and the entries concerned."""
    change, expected = TAMPERINGS[what]
    change(out)
    report = verify_export(out, vkey)
    assert not report.ok
    assert [problem for problem in report.problems if problem.startswith(expected)] != [], report.problems


def test_a_key_replaced_in_the_export_is_found_without_a_pin(out: Path) -> None:
    """Whoever puts his own key into the export must also sign everything anew."""
    (out / "vkey").write_text(FORGER.vkey)
    assert not verify_export(out).ok


async def test_an_export_of_one_log_verifies(history: Any, storage: Any, tmp_path: Path, vkey: str) -> None:
    """A part of the logs verifies by itself; that the log before is not here is a note."""
    await history()
    manifest = await export(storage, tmp_path / "part", logs=[2])
    assert not manifest.complete
    report = await in_thread(tmp_path / "part", vkey)
    assert report.problems == []
    assert "log 2: the log it continues, cl-test/audit/one/1, is not in this export" in report.notes


async def in_thread(root: Path, vkey: str, anchors: Path | None = None) -> Any:
    """Verify as async code does."""
    return await asyncio.to_thread(verify_export, root, vkey, anchors=anchors)


async def test_anchors_convict_a_shortened_export(
    *, opening: Any, granted: Any, storage: Any, tamper: Any, tmp_path: Path, vkey: str
) -> None:
    """A log whose end was removed without trace in the database contradicts the anchor file."""
    anchors = tmp_path / "anchors"
    async with opening(anchors=[FileAnchor(path=anchors)]) as journal:
        await journal.commit(granted(5))
    tamper("DELETE FROM audit_block WHERE seq > 0")
    tamper("DELETE FROM checkpoint WHERE size > 1")
    tamper("UPDATE audit_log SET closed_at = NULL")
    await export(storage, tmp_path / "export")
    assert (await in_thread(tmp_path / "export", vkey)).ok
    assert (await in_thread(tmp_path / "export", vkey, anchors)).problems == [
        "log 1: entries 1 to 6 are missing at its end: an anchored checkpoint vouches for 7 entries"
    ]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DELETE FROM audit_block WHERE log = 1 AND seq = 8", "log 1: entry 8 is missing: the database had lost it"),
        ("UPDATE audit_block SET entries = X'00' WHERE log = 1 AND seq = 8", "log 1: entry 8: the block is malformed"),
        ("DELETE FROM audit_block WHERE log = 1 AND seq > 8", "log 1: entries 15 to 22 are missing at its end"),
        ("UPDATE audit_block SET seq = 900000 WHERE log = 1 AND seq = 22", "log 1: entries 22 to 899999 are missing"),
        (
            "INSERT INTO audit_block SELECT rev, log, 10, count, entries FROM audit_block WHERE log = 1 AND seq = 8",
            "log 1: entry 10: two blocks hold entries of this number",
        ),
    ],
)
async def test_damage_is_exported_as_found(
    *, history: Any, storage: Any, tamper: Any, tmp_path: Path, vkey: str, sql: str, expected: str
) -> None:
    """An export of a damaged database succeeds, and its verification names the damage."""
    await history()
    assert tamper(sql) > 0
    await export(storage, tmp_path / "export")
    problems = (await in_thread(tmp_path / "export", vkey)).problems
    assert [problem for problem in problems if problem.startswith(expected)] != [], problems


async def test_an_occupied_folder_is_refused(history: Any, storage: Any, tmp_path: Path) -> None:
    """Nothing is written into a folder that holds something, or over a file; an empty folder is taken."""
    await history()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("full", "file"):
        with pytest.raises(Conflict, match="not an empty folder"):
            await export(storage, tmp_path / name)
    await export(storage, tmp_path / "empty")
    assert (tmp_path / "empty" / "export.json").exists()


async def test_a_failed_export_leaves_nothing(history: Any, storage: Any, tmp_path: Path) -> None:
    """When there is nothing to export, or no such log, no folder appears."""
    with pytest.raises(NotFound):
        await export(storage, tmp_path / "none")
    await history()
    with pytest.raises(NotFound, match="7"):
        await export(storage, tmp_path / "none", logs=[1, 7])
    assert [path.name for path in tmp_path.iterdir() if "none" in path.name] == []


async def test_an_export_runs_while_the_log_is_written(
    *, opening: Any, granted: Any, signed: Any, storage: Any, tmp_path: Path, vkey: str
) -> None:
    """A log that grows during its export is exported to some moment, and verifies."""
    async with opening() as journal:
        stop = asyncio.Event()

        async def write() -> None:
            first = 0
            while not stop.is_set():
                await journal.commit(granted(5, first))
                await signed(journal)
                first += 5

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            for turn in range(5):
                await export(storage, tmp_path / f"export-{turn}")
            stop.set()
    for turn in range(5):
        assert (await in_thread(tmp_path / f"export-{turn}", vkey)).problems == []


def test_what_is_no_export_is_told(tmp_path: Path, vkey: str) -> None:
    """No folder, an empty folder and an unfit key each get their own answer."""
    with pytest.raises(NotFound):
        verify_export(tmp_path / "none", vkey)
    with pytest.raises(BadRequest):
        verify_export(tmp_path, "none")
    assert verify_export(tmp_path, vkey).problems[0].startswith("export.json is unfit: cannot be read")


def test_a_report_is_one_json_document(out: Path, vkey: str) -> None:
    """The report has the fields that the command prints."""
    document = json.loads(msgspec.json.encode(verify_export(out, vkey)))
    assert {"ok", "entries", "checkpoints", "problems"} <= set(document)
