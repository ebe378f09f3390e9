"""Whether this replica's clock agrees with the database's, which all replicas share.

Leases are records of instants, so replicas must agree on the time to within what is allowed for here. Measuring is
`roll`'s, once with each beat. A clock that is set in between shows at once, by the one that nobody can set.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import structlog

from broker.clock import Clock

log = structlog.get_logger()

WARN_S: Final = 0.5
"""From here on operators are told."""
REFUSE_S: Final = 5.0
"""From here on nothing new is granted. `leases.duties` leaves so much time to whoever holds a lease that ran out."""


class Skew:
    """The newest measurement: `seconds` is how far this clock is ahead of the database's; 0 until there is one.

    Of a database that nobody else serves there never is one: its instants are this clock's own, also after it was set.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start: float | None = None
        self.seconds = 0.0
        self._told = 0.0

    @property
    def trouble(self) -> str:
        """Why new grants must be refused, or ""."""
        if self._start is None:
            return ""
        jumped_s = self._started() - self._start
        # Less than that is what clocks do while they are set with care; the next measurement knows it better.
        ahead_s = self.seconds + (jumped_s if abs(jumped_s) >= WARN_S else 0.0)
        if abs(ahead_s) < REFUSE_S:
            return ""
        where = "ahead of" if ahead_s > 0 else "behind"
        return (
            f"this replica's clock is {abs(ahead_s):.1f} s {where} the database's; new grants are refused until "
            f"it is within {REFUSE_S:g} s"
        )

    def measured(self, *, own: datetime, database: datetime, took_s: float) -> None:
        """Take up one measurement: `own` is the clock after the question, which took `took_s` seconds.

        The answer was made some time in between, so that much cannot be told from skew and is not called so.
        """
        ahead_s = (own - timedelta(seconds=took_s / 2) - database).total_seconds()
        certain_s = max(0.0, abs(ahead_s) - took_s / 2)
        self.seconds = certain_s if ahead_s > 0 else -certain_s
        self._start = self._started()
        self._tell()

    def _started(self) -> float:
        """What the clock shows for the zero of monotonic time: it changes when the clock is set."""
        return self._clock.now().timestamp() - self._clock.monotonic()

    def _tell(self) -> None:
        """Say it once for each of the two bounds that is crossed, and once when all is well again."""
        level = next((bound for bound in (REFUSE_S, WARN_S) if abs(self.seconds) >= bound), 0.0)
        if level > self._told:
            tell = log.error if level == REFUSE_S else log.warning
            tell("clock_skewed", ahead_s=round(self.seconds, 3), grants_refused=level == REFUSE_S)
        elif level < self._told:
            log.info("clock_skew_less", ahead_s=round(self.seconds, 3), grants_refused=level == REFUSE_S)
        self._told = level
