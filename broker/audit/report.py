"""What a verification found, in sentences that name the log and the entry. The checks are elsewhere."""

from __future__ import annotations

import msgspec

LINES_MAX = 1000
"""Most problems, and most notes, that one report lists; the rest is counted."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result. ok: no problem was found.

    entries, checkpoints: how many were checked. problems: each is evidence of tampering, loss or a defect. notes: what
    an auditor should know and what proves nothing (a crash, an unsigned tail, a clock that was set back).
    """

    ok: bool
    logs: int
    entries: int
    checkpoints: int
    problems: list[str]
    notes: list[str]


class Findings:
    """Collects while the checks run."""

    def __init__(self) -> None:
        self.logs = 0
        self.entries = 0
        self.checkpoints = 0
        self._problems: list[str] = []
        self._notes: list[str] = []
        self._problem_count = 0
        self._note_count = 0

    def problem(self, text: str) -> None:
        """Something that must not be."""
        self._problem_count += 1
        if len(self._problems) < LINES_MAX:
            self._problems.append(text)

    def note(self, text: str) -> None:
        """Something worth knowing."""
        self._note_count += 1
        if len(self._notes) < LINES_MAX:
            self._notes.append(text)

    def report(self) -> Report:
        """Everything so far."""
        problems, notes = list(self._problems), list(self._notes)
        if self._problem_count > LINES_MAX:
            problems.append(f"{self._problem_count - LINES_MAX} further problems are not listed")
        if self._note_count > LINES_MAX:
            notes.append(f"{self._note_count - LINES_MAX} further notes are not listed")
        return Report(
            ok=self._problem_count == 0,
            logs=self.logs,
            entries=self.entries,
            checkpoints=self.checkpoints,
            problems=problems,
            notes=notes,
        )
