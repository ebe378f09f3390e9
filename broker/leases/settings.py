"""The bounds of leasing, as one value that is fixed at start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseSettings:
    """batch_max: operations decided and committed together; batch_leases_max: leases that they may name together.

    queue_max: operations of workers that wait; beyond: rate_limited. See `waiting` for each worker's part of it.
    heads_max: token heads kept in memory. leases_per_session_max: beyond: rate_limited. retention_s: how long an
    ended lease stays on record. feed_stale_s: without the change feed for so long, new grants are refused.
    """

    batch_max: int = 512
    batch_leases_max: int = 4096
    queue_max: int = 65_536
    heads_max: int = 131_072
    leases_per_session_max: int = 1000
    retention_s: float = 30 * 24 * 3600.0
    feed_stale_s: float = 3.0
    renew_tick_s: float = 0.1
    expiry_tick_s: float = 1.0
    expiry_batch: int = 500
