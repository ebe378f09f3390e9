"""What rotators and issuers raise, as one tree. Their callers translate it; nothing else may come out of an adapter.

    UpstreamError
    ├── BadSettings   the settings or credentials of the token's policy are wrong; a person has to mend them
    ├── Refused       upstream said no; the same again will be refused again, until somebody does something there
    ├── Failed        upstream accepted and it did not work, or its answer makes no sense
    ├── Unreachable   no answer in time; the same again may work
    └── EndsByItself  of an issuer's `revoke`: nobody can end this value before its time

A message names the thing and the remedy, and never holds a value, a credential or the text of an answer that may.
"""

from __future__ import annotations

from datetime import datetime

from broker.errors import BrokerError


class UpstreamError(BrokerError):
    """The service that the token is for did not do what was asked of it."""

    code = "upstream_failed"


class BadSettings(UpstreamError):
    """The settings or credentials of the policy are wrong; mend them."""

    code = "upstream_settings"


class Refused(UpstreamError):
    """The service that the token is for refused; see its own logs."""

    code = "upstream_refused"


class Failed(UpstreamError):
    """The service that the token is for answered, and the answer is of no use."""


class Unreachable(UpstreamError):
    """The service that the token is for did not answer in time; it will be tried again."""

    code = "upstream_unreachable"


class EndsByItself(UpstreamError):
    """Nobody can end the value before its time; it works until then."""

    code = "upstream_ends_by_itself"

    def __init__(self, message: str | None = None, *, at: datetime) -> None:
        super().__init__(message)
        self.at = at
