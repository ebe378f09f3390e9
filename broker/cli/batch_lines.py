"""Read a batch file line by line and gather lines into parts, each small enough for one request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

import msgspec

from broker.api.views.tokens import BatchItem

ITEMS_MAX: Final = 200
BYTES_MAX: Final = 512 * 1024
"""Of the lines of one part. With the longest line on top it stays below the API's bound of 1 MiB."""
LINE_BYTES_MAX: Final = 450 * 1024
"""A value of 64 KiB in which every character is escaped takes 393 216."""


class LineResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a line, numbered from 1: stored as `version`, or refused with `code` and `detail`."""

    line: int
    token: str = ""
    version: int | None = None
    stage: str | None = None
    code: str | None = None
    detail: str | None = None


@dataclass(kw_only=True, slots=True)
class Part:
    """items to store, each with its line number; refused: lines that are no items."""

    items: list[BatchItem] = field(default_factory=list, repr=False)
    lines: list[int] = field(default_factory=list)
    refused: list[LineResult] = field(default_factory=list)
    size: int = 0

    @property
    def tokens(self) -> set[str]:
        """The names in it."""
        return {item.token for item in self.items}

    @property
    def is_full(self) -> bool:
        """Whether it is time to send it."""
        return len(self.items) + len(self.refused) >= ITEMS_MAX or self.size >= BYTES_MAX


def read_parts(stream: BinaryIO) -> Iterator[Part]:
    """The lines of the stream in parts; empty lines are skipped. Blocks on the stream; OSError as it raises."""
    part = Part()
    number = 0
    while line := stream.readline(LINE_BYTES_MAX + 1):
        number += 1
        too_long = len(line) > LINE_BYTES_MAX
        while too_long and line and not line.endswith(b"\n"):
            line = stream.readline(LINE_BYTES_MAX)
        if too_long:
            detail = f"the line is longer than {LINE_BYTES_MAX} bytes"
            part.refused.append(LineResult(line=number, code="bad_request", detail=detail))
        elif line.strip():
            _add(part, number, line)
        if part.is_full:
            yield part
            part = Part()
    if part.items or part.refused:
        yield part


def _add(part: Part, number: int, line: bytes) -> None:
    try:
        item = msgspec.json.decode(line, type=BatchItem)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # A decoder's text names fields and positions, never values; that of the others might.
        detail = str(error) if isinstance(error, msgspec.MsgspecError) else "the line is not JSON in UTF-8"
        part.refused.append(LineResult(line=number, code="bad_request", detail=detail))
        return
    part.items.append(item)
    part.lines.append(number)
    part.size += len(line)
