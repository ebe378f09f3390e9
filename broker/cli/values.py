"""Where a secret comes from: standard input, a file, or a named environment variable; never an argument.

Arguments are seen by every user of the machine and kept in the shell's history.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import BinaryIO

from broker.admin.values import VALUE_BYTES_MAX
from broker.cli.failures import CommandFailed
from broker.cli.output import note


def read_value(*, file: Path | None, variable: str | None) -> bytes:
    """The value, byte for byte. CommandFailed: it is empty, too long or not there. OSError: the file."""
    if file is not None:
        with file.open("rb") as stream:
            value = _bounded(stream)
    elif variable is not None:
        value = _from_environment(variable)
    elif sys.stdin.isatty():
        value = getpass.getpass("Value (not shown): ", stream=sys.stderr).encode()
    else:
        value = _bounded(sys.stdin.buffer)
    if not value:
        raise CommandFailed("the value is empty; a token has 1 to 65536 bytes")
    if value.endswith(b"\n"):
        note("note: the value ends with a line end, which is a part of it; printf '%s' writes none")
    return value


def _from_environment(variable: str) -> bytes:
    value = os.environb.get(os.fsencode(variable))
    if value is None:
        raise CommandFailed(f"the environment variable {variable} is not set")
    if len(value) > VALUE_BYTES_MAX:
        raise CommandFailed(f"the value has {len(value)} bytes; a token has at most {VALUE_BYTES_MAX}")
    return value


def _bounded(stream: BinaryIO) -> bytes:
    value = stream.read(VALUE_BYTES_MAX + 1)
    if len(value) > VALUE_BYTES_MAX:
        raise CommandFailed(f"the value is longer than {VALUE_BYTES_MAX} bytes, the most a token holds")
    return value
