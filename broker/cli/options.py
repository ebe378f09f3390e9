"""Options that read the same everywhere: time spans, instants, labels, files. A wrong one is exit code 2."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from broker.errors import BadRequest
from broker.spans import parse_span


def read_span(text: str) -> timedelta:
    """A span such as 90s, 5m or 1h."""
    try:
        return parse_span(text)
    except BadRequest as error:
        raise typer.BadParameter(error.message) from None


def read_instant(text: str) -> datetime:
    """An instant as RFC 3339 writes it, with its offset from UTC."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise typer.BadParameter(f"{text[:40]!r} is no time; write RFC 3339, such as 2026-12-31T23:59:59Z")
    return instant


def read_labels(texts: list[str]) -> dict[str, str]:
    """Labels out of `key=value` texts."""
    return read_pairs(texts, "--label")


def read_pairs(texts: list[str], option: str) -> dict[str, str]:
    """What an option of the form `key=value` says that may be given several times."""
    pairs: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key or key in pairs:
            raise typer.BadParameter(f"{text[:40]!r}: write key=value, each key once", param_hint=option)
        pairs[key] = value
    return pairs


def span_seconds(span: timedelta | None) -> int | None:
    """Whole seconds, as the API takes them."""
    if span is None:
        return None
    seconds = span.total_seconds()
    if seconds != int(seconds):
        raise typer.BadParameter("write whole seconds here")
    return int(seconds)


Span = Annotated[timedelta, typer.Option(parser=read_span, metavar="SPAN")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="D", help="The folder that `init` filled."),
]
Config = Annotated[Path | None, typer.Option("--config", metavar="F", help="The configuration (TOML).")]
