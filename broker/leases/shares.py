"""Which workers have a version that is being rolled out: a stable share of them, the same on every replica.

The format is docs/spec/rollouts.md; tests/vectors/rollout_buckets.json pins it.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

BUCKETS: Final = 10_000
"""Shares are parts of so many: 500 are 5 %."""
_FORMAT: Final = "tokenbroker/rollout/v1"


def bucket(token: str, worker: str, version: int) -> int:
    """The worker's place in the rollout of this version, 0 to 9999: it has the version where its place is below the
    share. So who has it keeps it when the share grows, and another version begins with other workers."""
    digest = sha256(f"{_FORMAT}\n{token}\n{worker}\n{version}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % BUCKETS
