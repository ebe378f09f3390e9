"""Clients that hang up before they are let in, as in a storm of reconnects: no fault of the broker's."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

UPGRADE = (
    b"GET /v1/connect HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: tokenbroker.v1\r\n\r\n"
)


FINISHED, RESET = b"\0" * 8, b"\1" + b"\0" * 7
"""How a connection ends that is closed: in order, or at once (struct linger of socket(7), on and 0 s)."""


@pytest.mark.parametrize("linger", [FINISHED, RESET], ids=["in order", "reset"])
async def test_who_has_hung_up_before_the_upgrade_is_no_internal_error(
    serving: Any, config: Path, linger: bytes
) -> None:
    """The broker finds request and end together, when it gets around to them; it logs no error, and serves on."""
    log = config.parent / "serve.log"
    async with serving(config, log) as broker:
        where = urlsplit(broker.url)
        os.kill(broker.pid, signal.SIGSTOP)
        for _ in range(20):
            with socket.create_connection((where.hostname, where.port)) as caller:
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                caller.sendall(UPGRADE)
        os.kill(broker.pid, signal.SIGCONT)
        async with aiohttp.ClientSession() as http, http.get(f"{broker.url}/readyz") as answer:
            assert answer.status == 200
        assert await broker.stop() == 0
    assert "api.internal_error" not in log.read_text()
    assert "Traceback" not in log.read_text()
    assert "Unhandled exception" not in log.read_text()
