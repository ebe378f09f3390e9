"""A connection that listens for announcements of other replicas: a hint, so that nobody waits for the next poll.

What was announced is read from the feed. If this connection is lost, polling alone serves until it is back.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg

from storage.news import News
from storage.postgres.connecting import Connector

AGAIN_S = 1.0
"""Pause before a lost connection is made anew."""


async def listen(connector: Connector, news: News) -> None:
    """Tell `news` of positions that any replica announces, until cancelled."""
    while True:
        # What is wrong is said by the pool's next statement, to somebody whom it concerns.
        with suppress(
            asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError
        ):
            await _listen_once(connector, news)
        await asyncio.sleep(AGAIN_S)


async def _listen_once(connector: Connector, news: News) -> None:
    connection = await connector.connect()
    try:
        gone = asyncio.Event()
        connection.add_termination_listener(lambda _: gone.set())
        await connection.add_listener("tokenbroker", lambda _c, _pid, _channel, text: _heard(news, text))
        await gone.wait()
    finally:
        connection.terminate()


def _heard(news: News, text: str) -> None:
    """Believe a position only as far as it wakes somebody early, who then reads what is there.

    Whoever may connect to the database may notify, too.
    """
    if text.isascii() and text.isdecimal() and len(text) <= 18:
        news.hint(int(text))
