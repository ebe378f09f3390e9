"""Liveness and readiness, for load balancers and orchestrators. They tell which part is red, never why: logs do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import Final

import msgspec
import structlog

from broker.clock import Clock


class State(Enum):
    """OK: it serves. DEGRADED: it serves, and has lost something that it could do with. FAILED: it cannot serve."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


Check = Callable[[], Awaitable[State]]
"""How the part does; raises when it cannot serve."""

CHECK_S: Final = 2.0
"""Longest wait for one check; later is red."""
REMEMBERED_S: Final = 1.0
"""Whoever asks more often gets the last answer: a probe must not become a load."""
_log = structlog.get_logger("tokenbroker.api")


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """ready: no check is "failed". checks: by name, "ok", "degraded" or "failed"."""

    ready: bool
    checks: dict[str, str]


class Readiness:
    """Runs the checks, all at once, at most once a second."""

    def __init__(self, *, checks: Mapping[str, Check], clock: Clock) -> None:
        self._checks = checks
        self._clock = clock
        self._turn = asyncio.Lock()
        self._last: tuple[float, Ready] | None = None

    async def read(self) -> Ready:
        """The state of every part, at most a second old."""
        async with self._turn:
            now = self._clock.monotonic()
            if self._last is not None and now - self._last[0] < REMEMBERED_S:
                return self._last[1]
            async with asyncio.TaskGroup() as group:
                tasks = {name: group.create_task(self._outcome(name, check)) for name, check in self._checks.items()}
            checks = {name: task.result() for name, task in tasks.items()}
            ready = Ready(
                ready=State.FAILED not in checks.values(),
                checks={name: state.value for name, state in checks.items()},
            )
            self._last = (now, ready)
            return ready

    async def _outcome(self, name: str, check: Check) -> State:
        try:
            async with asyncio.timeout(CHECK_S):
                return await check()
        except Exception as error:  # noqa: BLE001 - whatever it is, this part cannot serve
            _log.warning("api.not_ready", check=name, error=type(error).__name__)
            return State.FAILED
