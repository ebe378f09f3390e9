"""Whether every lease row has the entry that granted it: a row without one is a grant that was slipped in."""

from __future__ import annotations

from collections.abc import Iterable

from broker.audit.entries import LeaseGranted
from broker.audit.report import Findings
from storage.records.leases import LeaseRecord


class LeaseCheck:
    """Holds the token and worker of every row it was given, until their entry is met."""

    def __init__(self, *, rows: Iterable[LeaseRecord], findings: Findings) -> None:
        self._findings = findings
        self._open = {row.lease: (row.token, f"worker:{row.worker}") for row in rows}

    def granted(self, entry: LeaseGranted) -> None:
        """Take an entry; it settles the row with its lease, token and worker."""
        if self._open and self._open.get(entry.lease) == (entry.token, entry.actor):
            del self._open[entry.lease]

    def finish(self) -> None:
        """Name every row whose entry was not met."""
        for lease, (token, worker) in self._open.items():
            self._findings.problem(f"lease {lease}: no lease.granted entry gives {token} to {worker}")
