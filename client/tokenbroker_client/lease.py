"""A lease as an app sees it: the current value, and what happens to it."""

from __future__ import annotations

from typing import Literal

from tokenbroker_client.changes import Changes, Handler, Listener
from tokenbroker_client.errors import BadRequest, LeaseReleased, NotText
from tokenbroker_client.holding import Holding
from tokenbroker_client.keeper import Keeper
from tokenbroker_client.wire import RETRY_AFTER_S_MAX, ReportEvent, Stage


class Lease:
    """One token for as long as the `async with broker.lease(…)` block is open. Its repr shows no value.

    Read `value` each time it is needed rather than keeping it: it is always the current one. While the connection is
    down it stays readable until the lease's own end, and not a moment longer.
    """

    def __init__(self, *, holding: Holding, keeper: Keeper) -> None:
        self._holding = holding
        self._keeper = keeper
        self._listener = Listener()
        self._left = False
        holding.listeners.append(self._listener)

    @property
    def token(self) -> str:
        """The token's name."""
        return self._holding.token

    @property
    def value(self) -> str:
        """The current value as text.

        Raises LeaseExpired, LeaseRevoked, LeaseDenied or LeaseReleased when the lease is over, and NotText when the
        bytes are not UTF-8.
        """
        value = self.value_bytes
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            # `from None`: the original exception carries the value.
            raise NotText(f"the value of {self.token} is not UTF-8 text; read value_bytes") from None

    @property
    def value_bytes(self) -> bytes:
        """The current value, byte for byte as it was stored. Raises LeaseGone as `value` does."""
        if self._left:
            raise LeaseReleased(f"the lease of {self.token} was released when its block was left")
        try:
            return self._holding.read()
        finally:
            self._keeper.look_after(self._holding)

    @property
    def version(self) -> int:
        """The version of the current value; of the last one when the lease is over."""
        return self._holding.version

    @property
    def stage(self) -> Literal["current", "previous"]:
        """Which version of the token it follows."""
        return "previous" if self._holding.stage is Stage.PREVIOUS else "current"

    @property
    def content_type(self) -> str:
        """The media type that the operator gave the value."""
        return self._holding.content_type

    @property
    def remaining_s(self) -> float:
        """Seconds for which `value` can still be read if the broker is never heard again; 0.0 when it is over."""
        return 0.0 if self._left else self._holding.remaining_s

    def on_change(self, handler: Handler) -> Handler:
        """Have `handler` called after each change, one at a time, with the new value in place; usable as a decorator.

        A handler is a function or a coroutine function. The broker gets its acknowledgement when all handlers of the
        token have returned; when one raises, the acknowledgement says `failed`, with the exception's type, or with the
        message of a ChangeRejected. A handler that is busy while several changes come sees only the latest of them.
        """
        self._listener.handlers.append(handler)
        return handler

    def changes(self) -> Changes:
        """Return an iterator over the changes from this moment on.

        It ends after a revocation; it raises LeaseReleased when the block is left, and the SessionRefused that ended
        the session. It delays no acknowledgement; use `on_change` for that.
        """
        return Changes(self._listener.feed)

    def report_rejected(self) -> None:
        """Tell the broker that upstream refused the current value. It is recorded, and whoever operates it is alarmed.

        Reports return at once and have no answer: they are sent when there is a connection, and left out when the
        lease is over or the same was said within a second. So they may be made after each call upstream.
        """
        self._report(ReportEvent.REJECTED, None)

    def report_rate_limited(self, *, retry_after_s: float | None = None) -> None:
        """Tell the broker that upstream limits the rate; `retry_after_s` as it said, at most a day. BadRequest."""
        if retry_after_s is not None and not 0 <= retry_after_s <= RETRY_AFTER_S_MAX:
            raise BadRequest(f"retry_after_s={retry_after_s!r} lies outside 0 to {RETRY_AFTER_S_MAX} s")
        self._report(ReportEvent.RATE_LIMITED, retry_after_s)

    def report_ok(self) -> None:
        """Tell the broker that the current value works upstream."""
        self._report(ReportEvent.OK, None)

    def _report(self, event: ReportEvent, retry_after_s: float | None) -> None:
        if not self._left:
            self._keeper.report(self._holding, event, retry_after_s)

    def leave(self) -> None:
        """Stop reading: from here on `value` raises LeaseReleased. The `lease` block calls this."""
        self._left = True
        if self._listener in self._holding.listeners:
            self._holding.listeners.remove(self._listener)
        self._listener.feed.fail(LeaseReleased())

    def __repr__(self) -> str:
        return f"Lease(token={self.token!r}, version={self.version}, value=…)"
