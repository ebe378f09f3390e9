"""Cursors: where the next page of a list begins, as text that only this list takes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import heapq
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from broker.errors import BadRequest
from storage.port import Page
from storage.table import Key, R

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1000
CURSOR_CHARS_MAX: Final = 2048
_NO_CURSOR: Final = "cursor: this is not a cursor; send `next` of the page before, or none"


class _Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """scope: a hash over the list and its filters."""

    scope: str
    after: tuple[str | int, ...]


class PageQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every list takes. limit: at most so many items, 1 to 1000. cursor: `next` of the page before."""

    limit: Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": LIMIT_MAX})] = LIMIT_DEFAULT
    cursor: str | None = None


class Pager:
    """The paging of one request. Cursors are no secrets and no authority; they are checked so that mistakes show."""

    def __init__(self, *, operation: str, query: PageQuery) -> None:
        """BadRequest: the limit is out of bounds, or the cursor is not one of this list with these filters."""
        if not 1 <= query.limit <= LIMIT_MAX:
            raise BadRequest(f"limit: {query.limit} is not 1 to {LIMIT_MAX}")
        self.limit: int = query.limit
        self._scope = _scope(operation, query)
        self.after: Key | None = None if query.cursor is None else self._read(query.cursor)

    def next(self, after: Key | None) -> str | None:
        """The cursor for what follows `after`; None stays None: this was the last page."""
        if after is None:
            return None
        text = msgspec.json.encode(_Cursor(self._scope, after))
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    def cut(self, records: Iterable[R]) -> Page[R]:
        """One page out of all records of a list that is kept in memory, in the order of their keys."""
        behind = (record for record in records if self.after is None or record.key > self.after)
        page = heapq.nsmallest(self.limit + 1, behind, key=lambda record: record.key)
        more = len(page) > self.limit
        return Page(records=page[: self.limit], next=page[self.limit - 1].key if more else None)

    def _read(self, text: str) -> Key:
        if len(text) > CURSOR_CHARS_MAX:
            raise BadRequest(_NO_CURSOR)
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            cursor = msgspec.json.decode(raw, type=_Cursor)
        except (ValueError, binascii.Error, msgspec.MsgspecError):
            raise BadRequest(_NO_CURSOR) from None
        if cursor.scope != self._scope or not cursor.after:
            raise BadRequest("cursor: it belongs to another list or other filters; begin without one")
        return cursor.after


def _scope(operation: str, query: PageQuery) -> str:
    filters = msgspec.to_builtins(query)
    del filters["limit"], filters["cursor"]
    text = msgspec.json.encode((operation, filters), order="sorted")
    return hashlib.sha256(text).hexdigest()[:16]
