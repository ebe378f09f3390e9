"""Keep this process's memory, which holds keys and values, out of core dumps and away from other processes."""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4
"""prctl(2): 0 also keeps /proc/PID/mem closed to other processes of the same user."""


def forbid_core_dumps() -> None:
    """Do what this system offers. Never fails: on a system without it, the limit alone must do."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        except (OSError, AttributeError):
            return
