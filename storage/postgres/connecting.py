"""Making one connection: the hosts are asked in turn, each with a time of its own, the one that served last first.

asyncpg could be given all hosts at once, but under one deadline: the first that is silent would use it up.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

import asyncpg

from storage.postgres.address import Address

CONNECT_S: Final = 2.0
"""How long one host may take to give a connection before the next one is asked."""


class Connector:
    """Makes connections to whichever host of an address serves. connect_s: the time for each host."""

    def __init__(self, address: Address, *, connect_s: float = CONNECT_S) -> None:
        self._address = address
        self._connect_s = connect_s
        self._first = 0

    async def connect(self, _dsn: None = None, **arguments: Any) -> asyncpg.Connection:
        """A connection. arguments: what asyncpg is told beside the address, and past it; a pool gives its own.

        asyncpg.PostgresError, ssl.SSLError: why a host that answered refused, if one did; else what the last one's
        silence looked like (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError).
        """
        told: Exception | None = None
        for at in range(len(self._address.places)):
            host, port = self._address.places[(self._first + at) % len(self._address.places)]
            try:
                connection = await asyncpg.connect(
                    **{**self._address.arguments, **arguments}, host=host, port=port, timeout=self._connect_s
                )
            except (asyncpg.PostgresError, ssl.SSLError) as error:
                told = error
            except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                if not isinstance(told, (asyncpg.PostgresError, ssl.SSLError)):
                    told = error
            else:
                self._first = (self._first + at) % len(self._address.places)
                return connection
        assert told is not None, "an address has a place"
        raise told
