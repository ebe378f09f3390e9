"""Frames over one WebSocket: text in, typed frames out, each wait with a deadline.

This is the one place that knows aiohttp's WebSocket errors. Who may speak when is in `handshake` and `connection`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from ssl import SSLObject
from typing import Final

from aiohttp import ClientError, ClientWebSocketResponse, WSMsgType

from tokenbroker_client.errors import CLOSES, BrokerError, ConnectionLost
from tokenbroker_client.wire import (
    BadFrame,
    ClientFrame,
    CloseCode,
    ServerFrame,
    decode_server_frame,
    encode_frame,
)

_SEND_S: Final = 10.0
_ENDED: Final = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR})


class FrameSocket:
    """One open WebSocket that speaks the protocol's frames."""

    def __init__(
        self,
        *,
        websocket: ClientWebSocketResponse[bool],
        tls: bool,
        elapsed: Callable[[], float],
    ) -> None:
        self._websocket = websocket
        self._tls = tls
        self._elapsed = elapsed
        self._heard_at = elapsed()
        self._hint: float | None = None

    def channel_binding(self) -> bytes:
        """Return SHA-256 over the DER of the certificate that the broker showed; empty without TLS.

        Raises ConnectionLost when a TLS connection has no certificate to show (it is closed already).
        """
        if not self._tls:
            return b""
        tls: SSLObject | None = self._websocket.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        if not certificate:
            raise ConnectionLost("the TLS connection ended before its certificate could be read")
        return hashlib.sha256(certificate).digest()

    async def send(self, frame: ClientFrame) -> None:
        """Write a frame, whole or not at all, even when cancelled.

        Raises ConnectionLost, and BadFrame for a frame that is too long. Waits at most 10 s for the broker to read.
        """
        text = encode_frame(frame)
        try:
            async with asyncio.timeout(_SEND_S):
                await self._websocket.send_str(text)
        except TimeoutError:
            raise ConnectionLost(f"the broker has read nothing for {_SEND_S:.0f} s") from None
        except (ClientError, OSError) as error:
            raise ConnectionLost(f"the connection ended: {type(error).__name__}") from error

    async def receive(self, *, within_s: float) -> ServerFrame | None:
        """Return the next frame, or None for a ping (answered here) or a frame of an unknown type.

        Raises ConnectionLost when nothing was heard for `within_s` since the last message, even when a message lies
        ready: a process that slept that long cannot tell how old the message is. Raises it too when the connection
        ended or the broker broke the protocol, and the SessionRefused that the close code stands for.
        """
        left = within_s - (self._elapsed() - self._heard_at)
        try:
            async with asyncio.timeout(max(left, 0.0)):
                message = await self._websocket.receive()
        except TimeoutError:
            raise ConnectionLost(f"the broker was silent for {within_s:g} s") from None
        except (ClientError, OSError) as error:
            raise ConnectionLost(f"the connection ended: {type(error).__name__}") from error
        if message.type in _ENDED:
            # aiohttp forgets the code when the connection is gone before it could answer the close frame.
            raise self._ended(message.data if message.type is WSMsgType.CLOSE else self._websocket.close_code)
        if self._elapsed() - self._heard_at > within_s:
            raise ConnectionLost(f"this process slept for more than {within_s:g} s")
        self._heard_at = self._elapsed()
        if message.type is WSMsgType.PING:
            await self._pong(message.data)
            return None
        if message.type is not WSMsgType.TEXT:
            return None
        try:
            return decode_server_frame(message.data)
        except BadFrame as error:
            raise ConnectionLost(f"the broker sent a frame outside the protocol: {error}") from error

    def expect_pause(self, retry_after_s: float | None) -> None:
        """Remember what an error frame asked for, for the close that follows it."""
        self._hint = retry_after_s

    async def close(self, code: CloseCode = CloseCode.NORMAL) -> None:
        """Close the WebSocket; returns within about a second, whatever the broker does."""
        try:
            async with asyncio.timeout(2.0):
                await self._websocket.close(code=code)
        except (TimeoutError, ClientError, OSError):
            return

    async def _pong(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(_SEND_S):
                await self._websocket.pong(data)
        except (TimeoutError, ClientError, OSError) as error:
            raise ConnectionLost(f"the connection ended: {type(error).__name__}") from error

    def _ended(self, code: int | None) -> BrokerError:
        refused = CLOSES.get(code or 0)
        if refused is not None:
            return refused()
        return ConnectionLost(
            f"the connection ended with code {code}" if code else "the connection ended",
            retry_after_s=self._hint,
        )
