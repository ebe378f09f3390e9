"""Facts to standard output, messages to standard error."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import msgspec


def tell(line: str) -> None:
    """Write one line of fact."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def tell_bytes(data: bytes) -> None:
    """Write bytes as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def tell_json(facts: Mapping[str, object]) -> None:
    """Write one JSON document on one line."""
    tell(msgspec.json.encode(facts).decode("utf-8"))


def say(line: str) -> None:
    """Write a message for a person."""
    sys.stderr.write(f"tokenbroker-worker: {line}\n")
    sys.stderr.flush()
