"""The clock that leases are counted by. It tells spans only, never the time of day."""

from __future__ import annotations

import time


def elapsed_s() -> float:
    """Return seconds since some fixed instant; never goes back, and counts suspended time where the system can.

    Linux's monotonic clock stands still while a machine sleeps. A lease does not, so the boot-time clock counts.
    """
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)
