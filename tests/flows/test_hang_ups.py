"""Clients that hang up before they are let in, as in a storm of reconnects: no fault of the broker's."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

UPGRADE = (
    b"GET /v1/connect HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Protocol: tokenbroker.v1\r\n\r\n"
)


async def test_who_has_hung_up_before_the_upgrade_is_no_internal_error(serving: Any, config: Path) -> None:
    """The broker finds request and end together, when it gets around to them; it logs no error, and serves on."""
    log = config.parent / "serve.log"
    async with serving(config, log) as broker:
        where = urlsplit(broker.url)
        os.kill(broker.pid, signal.SIGSTOP)
        for _ in range(20):
            with socket.create_connection((where.hostname, where.port)) as caller:
                caller.sendall(UPGRADE)
        os.kill(broker.pid, signal.SIGCONT)
        async with aiohttp.ClientSession() as http, http.get(f"{broker.url}/readyz") as answer:
            assert answer.status == 200
        assert await broker.stop() == 0
    assert "api.internal_error" not in log.read_text()
    assert "Traceback" not in log.read_text()
