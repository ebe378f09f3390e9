"""A PostgreSQL server on another machine is told nothing but over TLS that is verified: no role, and no password."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.clock import SystemClock
from broker.upstream.errors import BadSettings, Unreachable, UpstreamError
from broker.upstream.port import Site
from broker.upstream.postgresql.server import ServerTerms, connected

ELSEWHERE = "0.0.0.0"
"""Leads to this machine, and is none of its names."""
SSL_REQUEST = bytes.fromhex("0000000804d2162f")
SITE = Site(clock=SystemClock(), hosts=frozenset({ELSEWHERE, "127.0.0.1"}))


class Listener:
    """Answers whether it speaks TLS, speaks it with `context` where it does, and keeps what it hears beside that."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.context = context
        self.port = 0
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(8)
            if first != SSL_REQUEST:
                self.heard = first
                return
            writer.write(b"N" if self.context is None else b"S")
            if self.context is not None:
                await writer.start_tls(self.context)
            self.heard += await reader.read(65536)
        except OSError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(context: ssl.SSLContext | None) -> AsyncIterator[Listener]:
    listener = Listener(context)
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    async with server:
        yield listener


async def fails(listener: Listener, host: str, **more: Any) -> UpstreamError:
    where = ServerTerms(host=host, port=listener.port, dbname="app", user="maker", **more)
    with pytest.raises(UpstreamError) as caught:
        async with connected(where, user="maker", password="a password", site=SITE):
            pass
    return caught.value


async def test_without_tls_nothing_is_said() -> None:
    """A server that has no TLS does not even hear which role wants in."""
    async with listening(None) as listener:
        assert isinstance(await fails(listener, ELSEWHERE), Unreachable)
    assert listener.heard == b""


async def test_to_whom_nobody_vouches_for_nothing_is_said(aws_standin: Any, tmp_path: Path) -> None:
    """A certificate of an unknown authority ends it; the very same server is told who wants in where it is known."""
    context, authority = aws_standin.certificate(tmp_path)
    async with listening(context) as listener:
        assert isinstance(await fails(listener, ELSEWHERE), BadSettings)
        assert listener.heard == b""
        await fails(listener, "127.0.0.1", tls_ca=str(authority))
        assert b"maker" in listener.heard
