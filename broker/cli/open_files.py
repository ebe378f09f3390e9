"""As many open files as this system allows: each connection is one, and the usual soft limit expects few of them."""

from __future__ import annotations

import resource


def allow_open_files() -> None:
    """Raise the soft limit to the hard one. Never fails: where that is not allowed, the limit stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return
