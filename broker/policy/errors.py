"""What the policy refuses to accept: a branch of the broker's `BadRequest`, so every edge knows how to answer it.

    PolicyRefused           carries thing, limit and remedy
    ├── NameRefused         the name of a token, worker, group, admin or keyring
    ├── SubjectRefused      whom a grant is for
    ├── PatternRefused      which tokens a grant names
    ├── LabelsRefused       too many labels, or one out of its bounds
    └── TermsRefused        what a grant allows
        ├── TtlRefused          how long a lease may live
        ├── ExpiryRefused       when the grant ends
        ├── SourcesRefused      from where it may be used
        └── WindowsRefused      when in the week it may be used

These are about input that somebody typed. A worker that may not have a token is not an error: see `decision`.
"""

from __future__ import annotations

from typing import Final

from broker.errors import BadRequest

EXCERPT_CHARS_MAX: Final = 80


class PolicyRefused(BadRequest, ValueError):
    """The input is outside what the policy accepts."""

    def __init__(self, *, thing: str, limit: str, remedy: str) -> None:
        """thing: what was refused, quoted with `excerpt`. limit: the bound it broke. remedy: what to do instead."""
        super().__init__(f"{thing}: {limit}; {remedy}")
        self.thing = thing
        self.limit = limit
        self.remedy = remedy


class NameRefused(PolicyRefused):
    """A name has a character, a length or a number of segments that names may not have."""


class SubjectRefused(PolicyRefused):
    """A grant's subject is neither worker:NAME nor group:NAME."""


class PatternRefused(PolicyRefused):
    """A token pattern has a segment that is neither a literal, nor * alone, nor ** at the end."""


class LabelsRefused(PolicyRefused):
    """There are too many labels, or one has a key or value that labels may not have."""


class TermsRefused(PolicyRefused):
    """What the grant would allow is outside the bounds of a grant."""


class TtlRefused(TermsRefused):
    """A lease may live from one second to 31 days, and its default not longer than its maximum."""


class ExpiryRefused(TermsRefused):
    """A grant that expires has to expire in the future."""


class SourcesRefused(TermsRefused):
    """There are too many source networks, or one is no network in CIDR notation."""


class WindowsRefused(TermsRefused):
    """There are too many weekly windows, or one is empty or crosses midnight."""


def excerpt(text: str) -> str:
    """Quote foreign text for a message: cut at 80 characters, and escaped so that it cannot steer a terminal."""
    quoted = ascii(text[:EXCERPT_CHARS_MAX])
    return quoted if len(quoted) <= EXCERPT_CHARS_MAX else f"{quoted[: EXCERPT_CHARS_MAX - 3]}..."
