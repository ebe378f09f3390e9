"""What tokens, workers, groups, admins, keyrings and grant subjects may be called.

A segment is `[a-z0-9][a-z0-9._-]{0,62}`. A token name is 1 to 8 segments joined by "/"; every other name is one
segment. Patterns over token names are in `patterns`. Whether a name exists is known elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

from broker.policy.errors import NameRefused, SubjectRefused, excerpt

TokenName = NewType("TokenName", str)
WorkerName = NewType("WorkerName", str)
GroupName = NewType("GroupName", str)
AdminName = NewType("AdminName", str)
KeyringName = NewType("KeyringName", str)

SEGMENTS_MAX: Final = 8
SEGMENT_CHARS_MAX: Final = 63
SEGMENT_RULE: Final = "1 to 63 characters a-z 0-9 . _ - that begin with a letter or digit"

_SEGMENT: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TOKEN: Final = re.compile(rf"{_SEGMENT.pattern}(?:/{_SEGMENT.pattern}){{0,{SEGMENTS_MAX - 1}}}")


class SubjectKind(StrEnum):
    """Whom a grant is for: one worker, or every worker of a group."""

    WORKER = "worker"
    GROUP = "group"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Whom a grant is for. `str()` gives the text that grant records hold."""

    kind: SubjectKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def is_segment(text: str) -> bool:
    """Whether the text is one segment of a name."""
    return _SEGMENT.fullmatch(text) is not None


def is_token_name(text: str) -> bool:
    """Whether the text is a token name, at the cost of one linear match."""
    return _TOKEN.fullmatch(text) is not None


def parse_token_name(text: str) -> TokenName:
    """Accept a token name. NameRefused: too many segments, or one that is no segment."""
    if is_token_name(text):
        return TokenName(text)
    segments = text.split("/")
    if len(segments) > SEGMENTS_MAX:
        raise NameRefused(
            thing=f"token name {excerpt(text)}",
            limit=f"has {len(segments)} segments, at most {SEGMENTS_MAX} are allowed",
            remedy="join segments with - or . instead of /",
        )
    bad = next(segment for segment in segments if not is_segment(segment))
    raise NameRefused(
        thing=f"token name {excerpt(text)}",
        limit=f"segment {excerpt(bad)} is not {SEGMENT_RULE}",
        remedy="name it like team/service/name",
    )


def parse_worker_name(text: str) -> WorkerName:
    """Accept a worker's name. NameRefused: it is not one segment."""
    return WorkerName(_one_segment("worker name", text))


def parse_group_name(text: str) -> GroupName:
    """Accept a group's name. NameRefused: it is not one segment."""
    return GroupName(_one_segment("group name", text))


def parse_admin_name(text: str) -> AdminName:
    """Accept an admin's name. NameRefused: it is not one segment."""
    return AdminName(_one_segment("admin name", text))


def parse_keyring_name(text: str) -> KeyringName:
    """Accept a keyring's name. NameRefused: it is not one segment."""
    return KeyringName(_one_segment("keyring name", text))


def parse_subject(text: str) -> Subject:
    """Accept `worker:NAME` or `group:NAME`. SubjectRefused: another kind, or a name that is not one segment."""
    kind, colon, name = text.partition(":")
    if not colon or kind not in tuple(SubjectKind) or not is_segment(name):
        raise SubjectRefused(
            thing=f"grant subject {excerpt(text)}",
            limit=f"is not worker:NAME or group:NAME, where NAME is {SEGMENT_RULE}",
            remedy="write for example worker:ci-1 or group:ci",
        )
    return Subject(kind=SubjectKind(kind), name=name)


def worker_subject(worker: str) -> str:
    """The subject that grants to this one worker name."""
    return f"{SubjectKind.WORKER}:{worker}"


def group_subject(group: str) -> str:
    """The subject that grants to this group name."""
    return f"{SubjectKind.GROUP}:{group}"


def _one_segment(thing: str, text: str) -> str:
    if is_segment(text):
        return text
    raise NameRefused(
        thing=f"{thing} {excerpt(text)}", limit=f"is not {SEGMENT_RULE}", remedy="choose a name like ci-1"
    )
