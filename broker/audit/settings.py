"""The bounds of the audit log. Where checkpoints are anchored is `broker.audit.anchors`' business."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditSettings:
    """Deadlines in seconds, bounds in entries.

    commit_deadline_s: a commit that is not confirmed by then is refused to its caller.
    checkpoint_every_s, checkpoint_entries: whichever comes first makes a checkpoint.
    unsigned_entries_max: at so many entries without a checkpoint, commits are refused.
    unsigned_s_max: an entry without a checkpoint for longer makes the log unhealthy.
    full_s: so long after a commit that found the disk full the log counts as unhealthy.
    close_deadline_s: the longest wait for each step of an orderly close.
    anchor_file: where signed checkpoints are appended too; it belongs on another disk, or a collector picks it up.
    """

    commit_deadline_s: float = 2.0
    checkpoint_every_s: float = 1.0
    checkpoint_entries: int = 1024
    unsigned_entries_max: int = 65_536
    unsigned_s_max: float = 10.0
    full_s: float = 5.0
    close_deadline_s: float = 5.0
    anchor_file: Path | None = None
