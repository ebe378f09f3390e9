"""Bytes that are no HTTP: an answer for whoever sent them, and not a word of them in the log, which others read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CANARY = "canary-x8Jq"
GET = "GET /v1/tokens"


async def send(url: str, data: bytes) -> bytes:
    """What is answered until the connection ends."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        writer.write(data)
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


BROKEN = {
    "a control character in a credential": f"{GET} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CANARY}\x01\r\n\r\n",
    "a lone carriage return behind one": f"{GET} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {CANARY}\r\r\n\r\n",
    "a body that is longer than it says": (
        "POST /v1/tokens/a/-/versions HTTP/1.1\r\nHost: x\r\n"
        "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        f'{{}}{{"value":"{CANARY}"}}\r\n\r\n'
    ),
    "a control character in a query": f"{GET}?credential={CANARY}\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header that is too long": f"{GET} HTTP/1.1\r\nHost: x\r\nAuthorization: {CANARY * 2000}\r\n\r\n",
}


async def test_what_cannot_be_read_is_answered_and_not_logged(serving: Any, config: Path) -> None:
    """Neither a credential nor a value ends in the log because of a stray byte, and strangers do not fill it."""
    log = config.parent / "serve.log"
    async with serving(config, log) as broker:
        for name, request in BROKEN.items():
            assert b" 400 " in await send(broker.url, request.encode()), name
        assert await broker.stop() == 0
    text = log.read_text()
    assert "listening on" in text
    assert CANARY not in text
    assert "Traceback" not in text
