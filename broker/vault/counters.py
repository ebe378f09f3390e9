"""What the vault counts. Exporting the numbers does not live here."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True, slots=True)
class VaultCounters:
    """Plain numbers since the start; `waiters` and `in_flight` are numbers at this moment.

    stale_served: hits that only an outage of the KMS excuses. unwraps: finished unwraps by result ("ok", or a
    FailureKind's value). evictions: by cause.
    """

    hits: int = 0
    misses: int = 0
    stale_served: int = 0
    refreshes: int = 0
    waiters: int = 0
    in_flight: int = 0
    unwraps: dict[str, int] = field(
        default_factory=lambda: {
            "ok": 0,
            "unavailable": 0,
            "denied": 0,
            "disabled": 0,
            "caller_denied": 0,
            "corrupt": 0,
        }
    )
    evictions: dict[str, int] = field(
        default_factory=lambda: {
            "capacity": 0,
            "expired": 0,
            "idle": 0,
            "replaced": 0,
            "flushed": 0,
            "denied": 0,
            "disabled": 0,
            "caller_denied": 0,
            "corrupt": 0,
        }
    )
