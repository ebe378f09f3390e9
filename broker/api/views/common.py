"""What all bodies share: strict requests, stable answers, and the page of a list."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta

from tokenbroker_client.wire.bounds import NAME_SEGMENT

Item = TypeVar("Item")


def _documented(**schema: object) -> Meta:
    """A bound for the OpenAPI document alone: the service that checks it has the better message."""
    return Meta(extra_json_schema=schema)


Name = Annotated[str, _documented(pattern=f"^{NAME_SEGMENT}$")]
TokenName = Annotated[str, _documented(pattern=f"^{NAME_SEGMENT}(/{NAME_SEGMENT}){{0,7}}$")]
Labels = Annotated[dict[str, str], _documented(maxProperties=32)]
Instant = Annotated[datetime, Meta(tz=True)]
Seconds = Annotated[int, _documented(minimum=0, maximum=31 * 86_400)]
Reason = Annotated[str, Meta(min_length=1, max_length=256)]
Base64 = Annotated[str, Meta(max_length=90_000), _documented(pattern="^[A-Za-z0-9_-]*$")]
PublicKey = Annotated[str, Meta(max_length=64), _documented(pattern="^[A-Za-z0-9_-]{43}$")]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body that somebody sends: an unknown field is a mistake, and refused."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A body that the broker sends: every field is always there."""


class Listing(Answer, Generic[Item], frozen=True, kw_only=True):
    """One page. next: the `cursor` of the following page, null on the last one, whatever the number of items."""

    items: list[Item]
    next: str | None


class NamePath(msgspec.Struct, frozen=True):
    """The name in a path."""

    name: Name
