"""How a law asks an adapter, and what it says when the adapter breaks it."""

from __future__ import annotations

import asyncio
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Awaitable, Coroutine, Generator, Iterable, Mapping
from typing import Any, TypeVar

from broker.secret import Secret
from broker.upstream.errors import UpstreamError
from broker.upstream.port import NOTE_CHARS_MAX, NOTES_MAX

_SHOWN_BYTES_MIN = 6
"""Shorter secrets would be found in any text by chance."""

T = TypeVar("T")


class LawBroken(AssertionError):
    """An adapter broke a law of its port."""


def require(holds: bool, otherwise: str) -> None:
    """Return if `holds`; raise LawBroken, saying `otherwise`. Works in an optimised interpreter as well."""
    if not holds:
        raise LawBroken(otherwise)


async def answered(call: Awaitable[T], *, of: str, deadline_s: float) -> T:
    """What `call` gives. LawBroken: it raised anything, or took longer than deadline_s."""
    try:
        return await _in_time(call, of, deadline_s)
    except UpstreamError as error:
        raise LawBroken(f"{of} was refused, and it must be done: {type(error).__name__}: {error}") from error


async def refused(call: Awaitable[object], *, of: str, deadline_s: float) -> UpstreamError:
    """The error that `call` must raise. LawBroken: it was done, or raised something that the port does not know."""
    try:
        await _in_time(call, of, deadline_s)
    except UpstreamError as error:
        return error
    except LawBroken:
        raise
    except Exception as error:
        raise LawBroken(f"{of} raised {type(error).__name__}, which is no error of broker.upstream.errors") from error
    raise LawBroken(f"{of} was done, and it must be refused")


async def cut_short(call: Coroutine[Any, Any, object], *, at: int, of: str, deadline_s: float) -> None:
    """Cancel `call` when it waits for the `at`th time; it may end before. LawBroken: it did not end as cancelled."""
    counted = _Counted(call, cancel_at=at)
    try:
        async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
            task = group.create_task(counted.run())
    except TimeoutError as error:
        raise LawBroken(f"{of}: no answer within {deadline_s:g} s") from error
    except ExceptionGroup as errors:
        raise LawBroken(f"{of}, cancelled at its await {at}, raised another error") from errors
    require(task.cancelled() or not counted.cut, f"{of}, cancelled at its await {at}, went on as if nothing had been")


async def awaits(call: Coroutine[Any, Any, T]) -> tuple[T, int]:
    """What a call gives, and how many times it waited."""
    counted = _Counted(call, cancel_at=None)
    return await counted.run(), counted.waited


def cuts(waited: int, most: int) -> list[int]:
    """At which of so many awaits to cut: at no more than `most`, the first and the last among them, spread evenly."""
    return sorted({index * (waited - 1) // (most - 1) for index in range(most)}) if waited else []


def tells_nothing(error: BaseException, secrets: Iterable[Secret]) -> None:
    """LawBroken: an error, or what is printed with it as its cause, holds one of the secrets."""
    told: BaseException | None = error
    while told is not None:
        _free_of(f"{told!s} {told!r}", secrets, f"the error {type(told).__name__}")
        told = told.__cause__ if told.__suppress_context__ or told.__cause__ else told.__context__


def notes_are_fit(notes: Mapping[str, str], secrets: Iterable[Secret], *, of: str) -> None:
    """LawBroken: over a bound, no text, or one of the secrets is in them."""
    require(len(notes) <= NOTES_MAX, f"{of} have {len(notes)} entries, and {NOTES_MAX} are the most")
    for name, text in notes.items():
        fits = max(len(name), len(text)) <= NOTE_CHARS_MAX
        require(fits, f"{of} have an entry over {NOTE_CHARS_MAX} characters")
        _free_of(f"{name} {text}", secrets, of)


def _free_of(text: str, secrets: Iterable[Secret], what: str) -> None:
    for secret in secrets:
        content = secret.reveal()
        if len(content) >= _SHOWN_BYTES_MIN:
            require(not any(spelt in text for spelt in _spellings(content)), f"{what} shows a secret")


def _spellings(content: bytes) -> tuple[str, ...]:
    """How these bytes could turn up in a text."""
    return (
        repr(content)[2:-1],
        content.decode(errors="replace"),
        content.hex(),
        b64encode(content).decode().rstrip("="),
        urlsafe_b64encode(content).decode().rstrip("="),
    )


async def _in_time(call: Awaitable[T], of: str, deadline_s: float) -> T:
    try:
        async with asyncio.timeout(deadline_s):
            return await call
    except TimeoutError as error:
        raise LawBroken(f"{of}: no answer within {deadline_s:g} s") from error


class _Counted:
    """Runs a coroutine, counts how often it waits, and cancels its task at one of those times."""

    def __init__(self, call: Coroutine[Any, Any, Any], *, cancel_at: int | None) -> None:
        self._call = call
        self._cancel_at = cancel_at
        self.waited = 0
        self.cut = False

    async def run(self) -> Any:
        return await self

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._call.__await__()
        sent: Any = None
        failed: BaseException | None = None
        while True:
            try:
                waits_for = inner.send(sent) if failed is None else inner.throw(failed)
            except StopIteration as ended:
                return ended.value
            if self.waited == self._cancel_at:
                self.cut = True
                # As the task is running, the cancellation takes effect at the yield: on what is waited for, as always.
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            self.waited += 1
            sent, failed = None, None
            try:
                sent = yield waits_for
            except BaseException as error:  # noqa: BLE001 - handed on to the call, whatever it is
                failed = error
