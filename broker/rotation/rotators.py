"""Ask rotators: each call with a deadline, and whatever comes out of one told as `broker.upstream.errors` has it.

A message is kept in records, logs and the audit log only if none of the values that the call had is in it, in any
common spelling: a rotator of somebody else's may quote what it was given.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar
from urllib.parse import quote

from broker.admin.errors import ValueRefused
from broker.admin.values import check_content_type, check_value
from broker.errors import BrokerError
from broker.secret import Secret
from broker.upstream.catalog import ROTATORS, names, open_rotator
from broker.upstream.errors import Failed, Unreachable, UpstreamError
from broker.upstream.port import NOTE_CHARS_MAX, NOTES_MAX, Made, Offline, Rotator, Site

T = TypeVar("T")

CHECK_S: Final = 10.0
"""Longest time that a rotator looks at a policy."""
MESSAGE_CHARS_MAX: Final = 400
_TELLING: Final = 4
"""Values shorter than this are in every text by chance."""
_WHITE: Final = re.compile(r"\s+")


class Rotators:
    """What is installed here. site: what the configuration lets rotators do."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @property
    def installed(self) -> tuple[str, ...]:
        """The names that policies may give."""
        return names(ROTATORS)

    async def check(self, rotator: str, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """Accept what the rotator accepts. BadSettings: it is not installed, or says what is wrong."""

        async def look(opened: Rotator) -> None:
            opened.check(settings, credentials)

        await self.ask(rotator, CHECK_S, look)

    async def is_offline(self, rotator: str) -> bool:
        """Whether nothing upstream knows what it makes. Raises as `ask`."""

        async def look(opened: Rotator) -> bool:
            return isinstance(opened, Offline)

        return await self.ask(rotator, CHECK_S, look)

    async def ask(self, rotator: str, call_s: float, question: Callable[[Rotator], Awaitable[T]]) -> T:
        """Open it, and ask within `call_s`. UpstreamError: as the rotator says; Unreachable: it took too long; Failed:
        it raised what it must not. Cancelled, the question was cancelled too.
        """
        try:
            async with asyncio.timeout(call_s), open_rotator(rotator, self._site) as opened:
                return await question(opened)
        except UpstreamError:
            raise
        except TimeoutError:
            raise Unreachable(f"the rotator {rotator} did not finish within {call_s:g} s, and was cut off") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Failed(f"the rotator {rotator} cancelled itself, which is a bug of it") from None
        except Exception as error:  # noqa: BLE001 - code of others: whatever it raises is about this one rotation
            kind = type(error).__name__
            raise Failed(f"the rotator {rotator} raised {kind}, which is a bug of it") from None


def check_made(made: object, *, credentials: Iterable[str]) -> Made:
    """Accept what a rotator made. Failed: it is not a `Made` within its bounds, or names a credential that is none of
    the policy's, or its notes hold a value.
    """
    if not isinstance(made, Made) or not isinstance(made.value, Secret):
        raise Failed("what the rotator made is of another type than the port says, which is a bug of it")
    try:
        check_content_type(made.content_type, check_value("the rotator", made.value.reveal()))
        for name, value in made.credentials.items():
            check_value(f"credential {name}", value.reveal())
    except ValueRefused as refused:
        raise Failed(f"what the rotator made cannot be stored: {refused.message}") from None
    if unknown := set(made.credentials).difference(credentials):
        raise Failed(f"the rotator gave {len(unknown)} credentials that the policy does not name")
    secrets = (made.value, *made.credentials.values())
    if len(made.notes) > NOTES_MAX or not all(_is_note(text) for pair in made.notes.items() for text in pair):
        raise Failed(f"the rotator's notes are over {NOTES_MAX}, or one is over {NOTE_CHARS_MAX} characters")
    if any(holds(text, secrets) for pair in made.notes.items() for text in pair):
        raise Failed("the rotator's notes hold a value, and notes are stored and shown; mend the rotator")
    return made


def told(error: BrokerError, secrets: Iterable[Secret]) -> str:
    """What may be recorded of an error: its code and message, or its kind alone if the message holds a value."""
    message = "".join(each if each.isprintable() else " " for each in error.message)
    if holds(message, secrets):
        message = f"{type(error).__doc__} (Its message held a value, and was not kept.)"
    return f"{error.code}: {_WHITE.sub(' ', message)[:MESSAGE_CHARS_MAX]}"


def holds(text: str, secrets: Iterable[Secret]) -> bool:
    """Whether one of the values is in the text, as it is or in a common spelling."""
    return any(spelling in text for secret in secrets for spelling in _spellings(secret.reveal()))


def _spellings(value: bytes) -> Iterator[str]:
    if len(value.strip()) < _TELLING:
        return
    yield value.hex()
    yield base64.b64encode(value).decode().rstrip("=")
    yield base64.urlsafe_b64encode(value).decode().rstrip("=")
    plain = value.decode("utf-8", "backslashreplace")
    for text in {plain, plain.strip(), _WHITE.sub(" ", plain.strip())}:
        yield text
        yield quote(text, safe="")
        yield ascii(text)[1:-1]


def _is_note(text: object) -> bool:
    if not isinstance(text, str) or len(text) > NOTE_CHARS_MAX:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
