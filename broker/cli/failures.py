"""Turn what went wrong into one line on standard error and an exit code. The only place that does.

The broker's messages name the thing, the limit and the remedy, so nothing is added. Anything that nobody foresaw is our
bug: the line says where, and nothing of its text, which might quote a secret.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Final

from broker.errors import BrokerError
from kms.errors import KmsError
from storage.errors import StorageError
from tokenbroker_client.errors import BrokerError as ClientError

FAILED: Final = 1
VERIFICATION_FAILED: Final = 3
TRACEBACK: Final = "TOKENBROKER_TRACEBACK"
"""Set this in the environment to see the whole of a bug."""


class CommandFailed(BrokerError):
    """The command cannot do that."""

    code = "command_failed"


def report(error: BaseException) -> int:
    """Say it on standard error; the exit code."""
    if isinstance(error, BrokenPipeError):
        # Whoever read our output went away; Python must not complain about that while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    print(f"tokenbroker: {one_line(error)}", file=sys.stderr)  # noqa: T201 - this is the command's voice
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    return FAILED


def one_line(error: BaseException) -> str:
    """What an operator should read about it; printable, and one line."""
    text = "; ".join(dict.fromkeys(_told(leaf) for leaf in _leaves(error)))
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """The text with everything that a terminal would act upon, or could not show, replaced by a question mark."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


def _told(error: BaseException) -> str:
    if isinstance(error, BrokerError):
        return error.message
    if isinstance(error, StorageError | KmsError | ClientError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return f"{where}{error.strerror or type(error).__name__}"
    if isinstance(error, TimeoutError):
        return "it took too long"
    return _bug(error)


def _bug(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""  # noqa: PTH119
    return f"this is a bug ({type(error).__name__}{where}); run it again with {TRACEBACK}=1 and report what it shows"
