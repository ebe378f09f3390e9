"""Telling an app of a change, and the broker of what came of it.

An acknowledgement says what the app did, so it goes out after the app's own handlers have run. A lease without
handlers has applied a change as soon as the value is swapped in.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Final

import msgspec

from tokenbroker_client.acknowledger import Acknowledger
from tokenbroker_client.changes import Change, Handler
from tokenbroker_client.errors import ChangeRejected, LeaseGone
from tokenbroker_client.holding import Holding
from tokenbroker_client.wire import DETAIL_CHARS_MAX, Ack, AckStatus, b64

_LOG: Final = logging.getLogger("tokenbroker_client")

Spawn = Callable[[Coroutine[object, None, None]], object]


class Delivery:
    """Runs handlers, one change at a time per token; a change that a newer one overtakes is not delivered."""

    def __init__(self, *, spawn: Spawn, acks: Acknowledger) -> None:
        self._spawn = spawn
        self._acks = acks
        self._waiting: dict[Holding, tuple[Change | None, Ack | None]] = {}
        self._running: set[Holding] = set()

    def deliver(self, holding: Holding, change: Change | None, ack: Ack | None) -> None:
        """Tell the app of `change`, then send `ack`, or its failure. Returns at once."""
        if change is not None:
            for listener in holding.listeners:
                listener.feed.publish(change)
        if holding in self._running:
            # A repeated push must not overtake the handler that is still busy with the first.
            if change is not None or holding not in self._waiting:
                self._waiting[holding] = (change, ack)
        elif change is not None and any(listener.handlers for listener in holding.listeners):
            self._waiting[holding] = (change, ack)
            self._running.add(holding)
            self._spawn(self._run(holding))
        elif ack is not None:
            self._acks.post(ack)

    async def _run(self, holding: Holding) -> None:
        try:
            while (item := self._waiting.pop(holding, None)) is not None:
                change, ack = item
                failure = await self._handle(holding, change) if change is not None else None
                if ack is None:
                    continue
                if failure is not None:
                    version = ack.version if ack.version is not None else holding.version
                    ack = msgspec.structs.replace(ack, status=AckStatus.FAILED, version=version, detail=failure)
                self._acks.post(ack)
        finally:
            self._running.discard(holding)

    async def _handle(self, holding: Holding, change: Change) -> str | None:
        """Run every handler, and return what the broker may know of the first failure."""
        failures = []
        for listener in list(holding.listeners):
            for handler in list(listener.handlers):
                failure = await _outcome(handler, change)
                if failure is not None:
                    _LOG.warning("a handler of %s failed: %s", holding.token, type(failure).__name__)
                    failures.append(_detail(failure, holding))
        return failures[0] if failures else None


async def _outcome(handler: Handler, change: Change) -> BaseException | None:
    """Run one handler and return what it raised. It sets its own deadline, for only the app knows one."""
    try:
        result = handler(change)
        if inspect.isawaitable(result):
            await result
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return error  # the handler cancelled itself, which is no wish of ours to stop
    except Exception as error:  # noqa: BLE001 - whatever an app's handler raises is its answer
        return error
    return None


def _detail(failure: BaseException, holding: Holding) -> str:
    """Say what failed, in at most 256 characters and without the token's value.

    Only ChangeRejected is meant for the broker's eyes. Of any other exception the type's name must do, for a library's
    message easily quotes the password it was given.
    """
    name = type(failure).__name__[:DETAIL_CHARS_MAX]
    if not isinstance(failure, ChangeRejected):
        return name
    try:
        value = holding.read()
    except LeaseGone:
        return name  # with the value wiped, nothing can tell whether the message holds it
    text = str(failure)
    forms = (value.decode("utf-8", "replace"), b64(value), value.hex(), repr(value)[2:-1])
    return name if any(form in text for form in forms) else text[:DETAIL_CHARS_MAX]
