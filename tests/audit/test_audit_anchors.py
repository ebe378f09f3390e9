"""Anchors: what is published, and that a failing one never holds the log up."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
import structlog

from broker.audit.anchored import read_anchors
from broker.audit.anchors import Anchor, FileAnchor, LogAnchor, Relay, anchors_of
from broker.audit.bundles import read_notes
from broker.audit.counters import Counters
from broker.audit.errors import LogBroken
from broker.audit.note import Signer, Verifier
from broker.audit.report import Findings
from broker.audit.settings import AuditSettings

NOTE = "cl/audit/one/1\n1\nroot\n\n\u2014 cl/audit AAAA\n"


class Broken:
    """An anchor that always fails."""

    async def publish(self, note: str) -> None:
        raise OSError("no such disk")


class Slow:
    """An anchor that takes one note at a time, when it is let."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.go = asyncio.Event()

    async def publish(self, note: str) -> None:
        await self.go.wait()
        self.notes.append(note)


async def test_every_checkpoint_reaches_the_file(
    *, opening: Any, granted: Any, signed: Any, until: Any, tmp_path: Path, vkey: str
) -> None:
    """The file holds the signed checkpoints in order, the final one included, and only its owner may read it."""
    path = tmp_path / "anchors"
    async with opening(anchors=[FileAnchor(path=path)]) as journal:
        await until(lambda: journal.counters.anchored == 1)
        await journal.commit(granted(2))
        await signed(journal)
        await until(lambda: journal.counters.anchored == 2)
    heads = read_anchors(path, verifier=Verifier(vkey), findings=Findings())
    assert [head.size for head in heads[1]] == [1, 3, 4]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_failing_anchor_is_counted_and_blocks_nothing(
    opening: Any, granted: Any, signed: Any, until: Any
) -> None:
    """Checkpoints are stored and the log stays healthy while an anchor fails every time."""
    async with opening(anchors=[Broken()]) as journal:
        await journal.commit(granted(2))
        await signed(journal)
        await until(lambda: journal.counters.anchor_failures == 2)
        assert journal.healthy()


async def test_a_slow_anchor_gets_the_newest(until: Any) -> None:
    """While an anchor is busy newer checkpoints replace waiting ones, so nothing piles up."""
    slow, counters = Slow(), Counters()
    relay = Relay(anchor=slow, counters=counters)
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(relay.run())
        relay.offer("one")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        relay.offer("two")
        relay.offer("three")
        slow.go.set()
        await until(lambda: counters.anchored == 2)
        loop.cancel()
    assert slow.notes == ["one", "three"]


async def test_a_note_cut_off_by_the_close_is_published_after_all() -> None:
    """A publication that is cancelled keeps its note for the last attempt."""
    slow, counters = Slow(), Counters()
    relay = Relay(anchor=slow, counters=counters)
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(relay.run())
        relay.offer("one")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        loop.cancel()
    slow.go.set()
    await relay.publish()
    await relay.publish()
    assert slow.notes == ["one"]


async def test_a_torn_write_does_not_swallow_the_next_note(tmp_path: Path) -> None:
    """After a crash in the middle of a write the next checkpoint is still a note of its own."""
    path = tmp_path / "anchors"
    anchor = FileAnchor(path=path)
    await anchor.publish(NOTE)
    os.truncate(path, path.stat().st_size - 9)
    await anchor.publish(NOTE)
    assert [note for note in read_notes(path) if note == NOTE] == [NOTE]


async def test_a_file_moved_away_is_made_afresh(tmp_path: Path) -> None:
    """Rotation by renaming loses nothing."""
    path = tmp_path / "anchors"
    anchor = FileAnchor(path=path)
    await anchor.publish(NOTE)
    path.rename(tmp_path / "anchors.1")
    await anchor.publish(NOTE)
    assert path.read_text() == (tmp_path / "anchors.1").read_text() == NOTE + "\n"


async def test_an_anchor_is_no_link(tmp_path: Path) -> None:
    """A link in the anchor's place is not followed."""
    (tmp_path / "anchors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        await FileAnchor(path=tmp_path / "anchors").publish(NOTE)
    assert not (tmp_path / "elsewhere").exists()


async def test_a_collector_s_lines_are_an_anchor(tmp_path: Path, vkey: str) -> None:
    """The structured lines that the log anchor writes can be read back as JSON lines, among others."""
    signer = Signer(name="cl-test/audit", seed=bytes(range(32)))
    note = signer.sign(f"cl-test/audit/one/4\n9\n{'A' * 43}=\n")
    with structlog.testing.capture_logs() as lines:
        await LogAnchor().publish(note)
    path = tmp_path / "lines"
    path.write_text("".join(json.dumps(line) + "\n" for line in [{"event": "other"}, *lines, {"note": 7}]))
    findings = Findings()
    heads = read_anchors(path, verifier=Verifier(vkey), findings=findings)
    assert [head.size for head in heads[4]] == [9]
    assert (findings.report().problems, len(findings.report().notes)) == ([], 1)


def test_a_file_that_is_no_anchor_is_refused(tmp_path: Path) -> None:
    """A line longer than any note ends the reading instead of filling memory."""
    path = tmp_path / "big"
    path.write_bytes(b"x" * 1_000_000)
    with pytest.raises(LogBroken, match="longer than any note"):
        list(read_notes(path))


def test_settings_name_the_anchors(tmp_path: Path) -> None:
    """The log line is always an anchor; the file when it is named."""
    kinds = [type(anchor) for anchor in anchors_of(AuditSettings(anchor_file=tmp_path / "a"))]
    assert kinds == [LogAnchor, FileAnchor]
    only: tuple[Anchor, ...] = anchors_of(AuditSettings())
    assert [type(anchor) for anchor in only] == [LogAnchor]
