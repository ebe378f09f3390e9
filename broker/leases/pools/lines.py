"""The lines of this replica: one for each pool that somebody asks for, for as long as somebody does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from broker.clock import Clock
from broker.leases.context import Context
from broker.leases.pools.line import Again, Line

if TYPE_CHECKING:
    from broker.leases.granting import Grant


class Lines:
    """The lines of this replica, each with a task in the desk's group."""

    def __init__(self, *, context: Context, clock: Clock, again: Again) -> None:
        self._context = context
        self._clock = clock
        self._again = again
        self._tasks: asyncio.TaskGroup | None = None
        self._lines: dict[str, Line] = {}

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Run in this group from now on."""
        self._tasks = tasks

    def join(self, grant: Grant) -> None:
        """Have this request decided again when it has a place; or fail with why it gets none."""
        line = self._lines.get(grant.token)
        if line is None:
            assert self._tasks is not None, "run() starts the lines"
            line = self._lines[grant.token] = Line(
                token=grant.token, context=self._context, clock=self._clock, again=self._again
            )
            line.join(grant)
            self._tasks.create_task(self._run(line, grant.token))
        else:
            line.join(grant)

    async def _run(self, line: Line, token: str) -> None:
        try:
            await line.run()
        finally:
            del self._lines[token]

    def waiting(self) -> Mapping[str, int]:
        """How many requests wait here, by pool."""
        return {token: len(line) for token, line in self._lines.items()}
