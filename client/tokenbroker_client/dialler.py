"""Opening connections to one broker: TCP, TLS, the upgrade, the handshake.

This is the one place that knows aiohttp's connection errors. When to dial again is for `link` to say.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Final

import aiohttp

from tokenbroker_client.connection import Connection
from tokenbroker_client.endpoint import Endpoint
from tokenbroker_client.errors import ConnectionLost, NotABroker, UntrustedCertificate
from tokenbroker_client.frame_socket import FrameSocket
from tokenbroker_client.handshake import Identity, prove_identity
from tokenbroker_client.wire import FRAME_BYTES_MAX, SUBPROTOCOL

_DIAL_S: Final = 10.0
_TRY_LATER: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Dialler:
    """Opens authenticated connections, one at a time or several."""

    def __init__(
        self,
        *,
        http: aiohttp.ClientSession,
        endpoint: Endpoint,
        identity: Identity,
        tls: ssl.SSLContext | None,
        elapsed: Callable[[], float],
    ) -> None:
        self._http = http
        self._endpoint = endpoint
        self._identity = identity
        self._tls = tls
        self._elapsed = elapsed

    @asynccontextmanager
    async def dial(self, *, cluster: str | None) -> AsyncIterator[Connection]:
        """Connect, prove who we are to a broker of `cluster` (None: of any), and close when the block is left.

        Raises SessionRefused where trying again is pointless, ConnectionLost where it is not. The TCP and TLS part may
        take 10 s.
        """
        websocket = await self._upgrade()
        socket = FrameSocket(websocket=websocket, tls=self._endpoint.tls, elapsed=self._elapsed)
        try:
            welcome = await prove_identity(socket, identity=self._identity, cluster=cluster)
            yield Connection(socket=socket, welcome=welcome, elapsed=self._elapsed)
        finally:
            await socket.close()

    async def _upgrade(self) -> aiohttp.ClientWebSocketResponse[bool]:
        try:
            async with asyncio.timeout(_DIAL_S):
                websocket = await self._http.ws_connect(
                    self._endpoint.connect_url,
                    protocols=(SUBPROTOCOL,),
                    autoping=False,  # so that pings count as signs of life
                    compress=0,  # a value compressed beside chosen text can be guessed from its length
                    max_msg_size=FRAME_BYTES_MAX,
                    timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                    ssl=self._tls if self._tls is not None else True,
                )
        except TimeoutError:
            raise ConnectionLost(f"the broker did not answer within {_DIAL_S:.0f} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise UntrustedCertificate(
                f"the certificate of {error.host} cannot be verified: {error.certificate_error}"
            ) from error
        except aiohttp.WSServerHandshakeError as error:
            raise _refused_upgrade(error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ConnectionLost(f"the broker cannot be reached: {error}") from error
        if websocket.protocol != SUBPROTOCOL:
            await websocket.close()
            raise NotABroker(f"the server does not speak {SUBPROTOCOL}")
        return websocket


@asynccontextmanager
async def open_dialler(
    *,
    endpoint: Endpoint,
    identity: Identity,
    tls: ssl.SSLContext | None,
    elapsed: Callable[[], float],
) -> AsyncIterator[Dialler]:
    """Open what dialling needs, and close it when the block is left."""
    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(_refuse_redirect)
    async with aiohttp.ClientSession(trace_configs=[tracing]) as http:
        yield Dialler(http=http, endpoint=endpoint, identity=identity, tls=tls, elapsed=elapsed)


async def _refuse_redirect(
    _session: aiohttp.ClientSession, _context: SimpleNamespace, parameters: aiohttp.TraceRequestRedirectParams
) -> None:
    """A redirect could lead from TLS to plaintext, or to a host that nobody configured."""
    raise NotABroker(f"the server answered {parameters.response.status}, a redirect; give the broker's own URL")


def _refused_upgrade(error: aiohttp.WSServerHandshakeError) -> ConnectionLost | NotABroker:
    if error.status in _TRY_LATER:
        return ConnectionLost(f"the broker answered {error.status} to the upgrade", retry_after_s=_retry_after_s(error))
    return NotABroker(f"the server answered {error.status} to the upgrade; check the URL")


def _retry_after_s(error: aiohttp.WSServerHandshakeError) -> float | None:
    """Read `Retry-After` in seconds (RFC 9110 section 10.2.3); its other form, a date, would need a clock."""
    text = error.headers.get("Retry-After", "") if error.headers is not None else ""
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 6 else None
