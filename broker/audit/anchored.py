"""Checkpoints read back from an anchor: evidence from outside the database, which the database must agree with."""

from __future__ import annotations

from pathlib import Path

from broker.audit.bundles import read_notes
from broker.audit.checkpoint import Checkpoint, Link, Origin
from broker.audit.errors import LogBroken, NoteBroken
from broker.audit.note import Verifier
from broker.audit.report import Findings


def read_anchors(path: Path, *, verifier: Verifier, findings: Findings) -> dict[int, list[Link]]:
    """The anchored tree heads by log number.

    The file holds signed notes with blank lines between them, or JSON lines with a "note" (a log collector's). What
    is no whole note of this cluster is counted as a note, since a crash may cut a write off; a file that cannot be
    read is a problem.
    """
    heads: dict[int, list[Link]] = {}
    unfit = 0
    try:
        for text in read_notes(path):
            try:
                head = Checkpoint.parse(verifier.open(text)).head
            except NoteBroken:
                unfit += 1
                continue
            heads.setdefault(Origin.parse(head.origin).log, []).append(head)
    except LogBroken as error:
        findings.problem(f"anchors: {error.message}")
    if unfit:
        findings.note(f"anchors: {unfit} pieces of {path.name} are no checkpoints signed by {verifier.name}")
    return heads
