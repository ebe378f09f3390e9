"""Whether the authority tables stand where the logs say that they stood: a live database compared with its own pins."""

from __future__ import annotations

from collections.abc import Iterable

from broker.audit.errors import EntryBroken
from broker.audit.pinned import Pin, lapses, states_of
from broker.audit.report import Findings
from storage.records import ManifestRecord


class PinCheck:
    """Holds the newest pin of every log, and the newest unsigned one: pins are fed to it in ascending order."""

    def __init__(self, *, findings: Findings) -> None:
        self._findings = findings
        self._newest: dict[tuple[int, bool], Pin] = {}

    def pinned(self, pin: Pin) -> None:
        """Take a pin. An acceptance is told: from then on, earlier pins prove nothing."""
        try:
            states_of(pin.entry)
        except EntryBroken as error:
            self._findings.problem(f"log {pin.log}, entry {pin.seq}: {error.message}")
            return
        self._newest[pin.log, pin.signed] = pin
        if pin.entry.accepted:
            self._findings.note(
                f"log {pin.log}, entry {pin.seq}: an operator accepted authority tables that were put back (with the "
                f"revision pinned and the one found), or lost logs: {', '.join(pin.entry.accepted)}"
            )

    def finish(self, manifests: Iterable[ManifestRecord]) -> None:
        """Compare with manifests that were read after the last entry was fed, and name what is behind."""
        since = max((pin.entry.since for pin in self._newest.values() if pin.signed), default=0)
        for lapse in lapses((pin for pin in self._newest.values() if pin.log >= since), manifests):
            self._findings.problem(f"{lapse.text}; compare with a backup and the audit log")
