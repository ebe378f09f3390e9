"""Time spans as operators write them: `90s`, `5m`, `1h`, `7d`."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import Final

_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def span_s(text: str) -> float:
    """Read a span and return seconds. Raises ArgumentTypeError, whose message argparse shows."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd])", text, re.ASCII)
    seconds = float(match[1]) * _UNIT_S[match[2]] if match else 0.0
    if seconds <= 0.0:
        raise ArgumentTypeError(f"{text!r} is no time span; write 90s, 5m or 1h")
    return seconds
