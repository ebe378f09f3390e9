"""Revisions over HTTP: the entity tag of a thing is its revision, and a change may name the one it was decided on."""

from __future__ import annotations

import re
from typing import Final

from broker.errors import BadRequest

_TAG: Final = re.compile(r'"([1-9][0-9]{0,17})"')
MUST_NOT_EXIST: Final = 0
"""What services take for "only if there is none yet"."""


def etag(rev: int) -> str:
    """The strong entity tag of a revision (RFC 9110 section 8.8.3)."""
    return f'"{rev}"'


def parse_conditions(if_match: str | None, if_none_match: str | None) -> int | None:
    """The revision that If-Match names, `MUST_NOT_EXIST` for `If-None-Match: *`, None without either.

    BadRequest: anything else, such as a weak tag, a list, both headers, or `If-Match: *`, which any change implies.
    """
    if if_none_match is not None:
        if if_none_match != "*" or if_match is not None:
            raise BadRequest('if-none-match: only "*" is taken, and not together with if-match')
        return MUST_NOT_EXIST
    if if_match is None:
        return None
    match = _TAG.fullmatch(if_match)
    if match is None:
        raise BadRequest('if-match: send one entity tag as the etag header gave it, like "3"')
    return int(match[1])
