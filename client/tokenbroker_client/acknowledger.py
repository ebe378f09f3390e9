"""Acknowledgements and reports on their way to the broker. When one is due, `delivery` or the app says."""

from __future__ import annotations

import asyncio
from typing import Final

from tokenbroker_client.connection import Connection
from tokenbroker_client.errors import Closed, ConnectionLost, SessionRefused
from tokenbroker_client.link import Link
from tokenbroker_client.wire import Ack, Report

_DUE_MAX: Final = 10_000


class Acknowledger:
    """Sends the latest acknowledgement of each lease, and its latest report of each kind, in the order of posting.

    Keeps what is due while there is no connection. At most 10 000 wait; then the oldest is dropped, and the broker
    lists that worker as one that did not answer.
    """

    def __init__(self, *, link: Link) -> None:
        self._link = link
        self._due: dict[tuple[str, str], Ack | Report] = {}
        self._posted = asyncio.Event()

    def post(self, said: Ack | Report) -> None:
        """Have this sent, in place of an earlier one of the same lease and kind that is still due."""
        place = _place(said)
        self._due.pop(place, None)
        self._due[place] = said
        while len(self._due) > _DUE_MAX:
            self._due.pop(next(iter(self._due)))
        self._posted.set()

    async def run(self) -> None:
        """Send until cancelled, or until there will be no further session."""
        lost: Connection | None = None
        while True:
            await self._posted.wait()
            try:
                connection = await self._link.open(instead_of=lost)
                await self._send_all(connection)
            except ConnectionLost:
                lost = connection
            except (SessionRefused, Closed):
                return

    async def _send_all(self, connection: Connection) -> None:
        while self._due:
            place, said = next(iter(self._due.items()))
            await connection.send(said)
            if self._due.get(place) is said:
                del self._due[place]
        self._posted.clear()


def _place(said: Ack | Report) -> tuple[str, str]:
    return (said.lease, said.event if isinstance(said, Report) else "ack")
