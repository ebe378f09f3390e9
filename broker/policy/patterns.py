"""Which tokens a grant names. How a token is looked up among many patterns is in `trie`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from broker.policy.errors import PatternRefused, excerpt
from broker.policy.names import SEGMENT_RULE, SEGMENTS_MAX, is_segment

ANY_ONE: Final = "*"
"""Matches exactly one whole segment, whatever it is."""
ANY_DEPTH: Final = "**"
"""As the last segment: matches one or more segments."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pattern:
    """1 to 8 segments, each a literal, `*`, or, at the end only, `**`. `str()` gives the text that was parsed."""

    segments: tuple[str, ...]

    def __str__(self) -> str:
        return "/".join(self.segments)


def parse_pattern(text: str) -> Pattern:
    """Accept a token pattern.

    PatternRefused: more than 8 segments; `**` before the end; a segment that is neither a literal nor a whole wildcard.
    Partial wildcards (`ci-*`) are refused because a later token with a lucky name would fall under them.
    """
    segments = tuple(text.split("/"))
    if len(segments) > SEGMENTS_MAX:
        raise PatternRefused(
            thing=f"pattern {excerpt(text)}",
            limit=f"has {len(segments)} segments, at most {SEGMENTS_MAX} are allowed",
            remedy="end it earlier with **",
        )
    if ANY_DEPTH in segments[:-1]:
        raise PatternRefused(
            thing=f"pattern {excerpt(text)}",
            limit="has ** before its end",
            remedy="write * for one segment, or end the pattern with **",
        )
    for segment in segments:
        if segment in (ANY_ONE, ANY_DEPTH) or is_segment(segment):
            continue
        raise PatternRefused(
            thing=f"pattern {excerpt(text)}",
            limit=f"segment {excerpt(segment)} is neither * nor ** nor {SEGMENT_RULE}",
            remedy="a wildcard stands for whole segments, as in github/* or github/**",
        )
    return Pattern(segments=segments)
