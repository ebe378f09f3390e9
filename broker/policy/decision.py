"""What the policy answers. How it gets there is in `entitlements`; the same in words is in `explain`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from storage.records.grants import GrantRecord


class Refusal(StrEnum):
    """Why a worker may not lease a token. For operators and the audit log: to workers all of them look alike."""

    NO_GRANT = "no_grant"
    """No grant of this worker or its groups covers the token, or the text is no token name."""
    EXPIRED = "expired"
    """Every grant that covers the token has expired."""
    SOURCE = "source"
    """The session's source address is outside the grant's networks, or unknown."""
    PREVIOUS = "previous"
    """The previous version was asked for, and the grant allows the current one only."""
    WINDOW = "window"
    """The instant is outside the grant's weekly windows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Yes with the grant that says so, or no with the reason: exactly one of the two is None."""

    grant: GrantRecord | None = None
    refusal: Refusal | None = None

    @property
    def allowed(self) -> bool:
        """Whether the worker may lease the token."""
        return self.grant is not None
