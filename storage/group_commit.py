"""Group commit: calls that arrive while one transaction is on its way to disk share the next one.

Lives on the event loop and owns no task: an adapter's answer to one group starts the next. What a group writes, and
what a conflict undoes, is the adapter's business.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from storage.errors import StorageError, Unavailable
from storage.port import Committed
from storage.work import Outcome, Work

WAITING_MAX = 4096
"""Commit calls that may wait for their group; the next one is refused with Unavailable."""

GROUP_CALLS_MAX = 512
GROUP_ITEMS_MAX = 8192
"""A group ends before it would exceed these; a single call of more items is a group by itself."""

CUT_SHORT = "storage is closing; the commit may or may not exist"

Submit = Callable[[Sequence[Work]], "asyncio.Future[list[Outcome]]"]


class _Call(NamedTuple):
    work: Work
    # Resolved with a value also for a refusal: an exception set on a future whose caller was cancelled would be
    # reported as never retrieved.
    outcome: asyncio.Future[Outcome]


class Committer:
    """Takes commits in, in order, and resolves each when its group's transaction is on disk.

    submit: sends a group to the database. announced: told the newest feed position after a group that announced.
    answer_s: the database's time for one group; then all who wait are told Unavailable.
    """

    def __init__(self, *, submit: Submit, announced: Callable[[int], None], answer_s: float) -> None:
        self._submit = submit
        self._announced = announced
        self._answer_s = answer_s
        self._waiting: deque[_Call] = deque()
        self._group: list[_Call] = []
        self._busy = False
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._overdue: asyncio.TimerHandle | None = None

    async def commit(self, work: Work) -> Committed:
        """The work's result, once it is durable. A cancelled call is left out if its group has not begun, else whole.

        StorageError: what the writer said. Unavailable: closed, `WAITING_MAX` calls wait already, or no answer within
        `answer_s`: then the work may come to exist, whole, or not.
        """
        if self._closed:
            raise Unavailable("storage is closed")
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable(f"{WAITING_MAX} commits wait for the disk already; retry later")
        loop = asyncio.get_running_loop()
        call = _Call(work, loop.create_future())
        self._waiting.append(call)
        if not self._busy:
            self._busy = True
            self._idle.clear()
            # Not at once: calls made in the same turn of the loop share the group.
            loop.call_soon(self._begin)
        outcome = await call.outcome
        if isinstance(outcome, StorageError):
            raise outcome
        return outcome

    async def close(self) -> None:
        """Refuse further calls and return when those accepted have their answer."""
        self._closed = True
        await self._idle.wait()

    def _begin(self) -> None:
        self._group = self._take_group()
        if not self._group:
            self._busy = False
            self._idle.set()
            return
        try:
            job = self._submit([call.work for call in self._group])
        except (ValueError, RuntimeError):
            # Closing was cut short and who submits is gone (a thread, a group of tasks); nobody shall wait for it.
            for call in self._group:
                _resolve(call, Unavailable("storage is closed"))
            self._begin()
            return
        self._watch()
        job.add_done_callback(self._end)

    def _watch(self) -> None:
        self._overdue = asyncio.get_running_loop().call_later(self._answer_s, self._give_up)

    def _take_group(self) -> list[_Call]:
        group: list[_Call] = []
        items = 0
        while self._waiting and len(group) < GROUP_CALLS_MAX:
            call = self._waiting[0]
            items += call.work.items
            if group and items > GROUP_ITEMS_MAX:
                break
            self._waiting.popleft()
            if not call.outcome.done():  # else: cancelled while it waited, and so absent
                group.append(call)
        return group

    def _end(self, job: asyncio.Future[list[Outcome]]) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
        group, self._group = self._group, []
        # Cancelled: the adapter is being torn down. Who waits is told, or closing would wait for ever.
        error = Unavailable(CUT_SHORT) if job.cancelled() else job.exception()
        if error is None:
            outcomes = job.result()
            newest = max((done.position for done in outcomes if isinstance(done, Committed)), default=0)
            if newest:
                self._announced(newest)
            for call, outcome in zip(group, outcomes, strict=True):
                _resolve(call, outcome)
        else:
            for call in group:
                _fail(call, error)
        self._begin()

    def _give_up(self) -> None:
        message = f"the disk has not answered for {self._answer_s:g} s; the commit may or may not exist"
        for call in (*self._group, *self._waiting):
            _resolve(call, Unavailable(message))
        self._watch()  # for those who come while the disk is still silent


def _resolve(call: _Call, outcome: Outcome) -> None:
    if not call.outcome.done():
        call.outcome.set_result(outcome)


def _fail(call: _Call, error: BaseException) -> None:
    if call.outcome.done():
        return
    if isinstance(error, StorageError):
        # An instance each: two tasks that raise the same one would share its traceback.
        call.outcome.set_result(type(error)(*error.args))
    else:
        call.outcome.set_exception(error)
