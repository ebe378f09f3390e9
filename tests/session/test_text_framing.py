"""Frames written past aiohttp, read back by aiohttp's own parser."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.base_protocol import BaseProtocol

from broker.session.framing import text_frames


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 511, 512, 65535, 65536, 128 * 1024])
async def test_a_frame_of_any_length_is_read_back(length: int) -> None:
    """Every form of the length field (RFC 6455 section 5.2), at its borders."""
    queue = WebSocketDataQueue(BaseProtocol(asyncio.get_running_loop()), 2**22, loop=asyncio.get_running_loop())
    reader = WebSocketReader(queue, 0, False, False)
    reader.feed_data(text_frames([b"x" * length, b"next"]))
    first, second = await queue.read(), await queue.read()
    assert (first.type, bytes(first.data)) == (WSMsgType.TEXT, b"x" * length)
    assert bytes(second.data) == b"next"
