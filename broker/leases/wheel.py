"""When held leases are renewed: a timing wheel, so that scheduling and forgetting one cost the same few steps.

It only remembers moments; `renewing` decides and the desk writes.
"""

from __future__ import annotations

from collections import defaultdict

from broker.leases.held import Held


class Wheel:
    """Held leases by the tick in which their renewal falls due. A lease stands in at most one slot: `Held.slot`."""

    def __init__(self, *, tick_s: float, start: float) -> None:
        self._tick_s = tick_s
        self._slots: defaultdict[int, dict[Held, None]] = defaultdict(dict)
        self._turned = int(start / tick_s)

    def set(self, held: Held) -> None:
        """Renew this lease at `held.renew_at`, in place of any moment set before."""
        slot = int(held.renew_at / self._tick_s)
        if slot <= self._turned:
            slot = self._turned + 1
        if held.slot == slot:
            return
        if held.slot:
            self.clear(held)
        held.slot = slot
        self._slots[slot][held] = None

    def clear(self, held: Held) -> None:
        """Never renew this lease; harmless when it was not set."""
        if held.slot:
            leases = self._slots[held.slot]
            del leases[held]
            if not leases:
                del self._slots[held.slot]
            held.slot = 0

    def turn(self, now: float) -> list[Held]:
        """Take out every lease whose moment has come, at a cost that follows what is due and the ticks since."""
        until = int(now / self._tick_s)
        due: list[Held] = []
        few_ticks = until - self._turned < len(self._slots)
        slots = range(self._turned + 1, until + 1) if few_ticks else sorted(s for s in self._slots if s <= until)
        for slot in slots:
            for held in self._slots.pop(slot, ()):
                held.slot = 0
                due.append(held)
        self._turned = max(self._turned, until)
        return due
