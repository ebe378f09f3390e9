"""What the audit log did, as plain integers that metrics read. They count from the opening of the log."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class Counters:
    """Each only grows.

    refused: commits turned away before storage saw them. late: commits not confirmed within the deadline.
    doubtful: commits of which storage could not say whether they were written.
    healed: of those, the ones found written afterwards.
    """

    commits: int = 0
    entries: int = 0
    refused: int = 0
    late: int = 0
    doubtful: int = 0
    healed: int = 0
    checkpoints: int = 0
    checkpoint_failures: int = 0
    anchored: int = 0
    anchor_failures: int = 0
