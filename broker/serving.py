"""Serve one broker on HTTP until told to stop, then let it down in order.

The order: refuse what is new, ask workers to go, drain, cancel, close the audit log, then KMS and storage. What is
served is wired in `app` and put together as HTTP in `front`.
"""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from aiohttp import web

from broker.app import Broker, open_broker
from broker.clock import Clock
from broker.errors import BrokerError, StartRefused
from broker.front import make_app
from broker.idle import IdleConnections
from broker.settings import Settings
from broker.tls import is_loopback
from kms.errors import KmsError
from storage.errors import StorageError

log = structlog.get_logger()

_TLS_S = 5.0
"""Longest time for the handshake of TLS, which comes before anything is known of a peer."""
_DRAINED_S = 5.0
"""Longest wait at shutdown for operations on their way; what has not been answered by then was not acknowledged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reload:
    """asked: set whenever the configuration shall be read again. read: reads it; StartRefused: it is wrong."""

    asked: asyncio.Event
    read: Callable[[], Settings]


async def serve(
    settings: Settings,
    *,
    stop: asyncio.Event,
    ready: Callable[[str], None],
    reload: Reload | None = None,
    accept_audit_loss: bool = False,
    clock: Clock | None = None,
) -> None:
    """Serve until `stop` is set, then let everything down in order. `ready` is told the base URL once it listens.

    reload: takes over another configuration meanwhile (`broker.reloading`), or says in the log why not.

    Raises what `open_broker` raises, and StartRefused when it cannot listen where it should.
    """
    host, port = settings.address
    if not is_loopback(host) and settings.server.tls_cert is None and not settings.server.insecure_plaintext:
        raise StartRefused(
            f"server.listen is {settings.server.listen}, which is not loopback: set server.tls_cert and "
            "server.tls_key, or server.insecure_plaintext = true behind a TLS proxy"
        )
    async with (
        open_broker(settings, clock=clock, accept_audit_loss=accept_audit_loss) as broker,
        asyncio.TaskGroup() as tasks,
    ):
        loops = [tasks.create_task(loop) for loop in (broker.desk.run(), *broker.loops)]
        if reload is not None:
            loops.append(tasks.create_task(_reload_when_asked(broker, reload)))
        _spare_the_collector()
        try:
            async with listening(broker, host, port) as url:
                ready(url)
                await stop.wait()
                await broker.sessions.drain()
            try:
                async with asyncio.timeout(_DRAINED_S):
                    await broker.desk.drained()
                    await broker.uses.flush()
            except TimeoutError:
                log.warning("desk_not_drained", waited_s=_DRAINED_S)
        finally:
            for task in loops:
                task.cancel()


async def _reload_when_asked(broker: Broker, reload: Reload) -> None:
    """Take over another configuration each time it is asked for, until cancelled. A refusal changes nothing."""
    while True:
        await reload.asked.wait()
        reload.asked.clear()
        try:
            await broker.reloading.apply(reload.read())
        except (BrokerError, KmsError, StorageError) as error:
            log.error("configuration_refused", error=str(error))  # noqa: TRY400 - it is the operator's, and no bug


def _spare_the_collector() -> None:
    """Leave what start-up made out of garbage collection, and look for cycles less often.

    Each lease makes a handful of objects that live for minutes and form no cycles; with the interpreter's defaults
    they are walked again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@asynccontextmanager
async def listening(broker: Broker, host: str, port: int) -> AsyncIterator[str]:
    """Accept connections while the context lasts; gives the base URL. StartRefused: the address cannot be had."""
    app = make_app(broker)
    idle = IdleConnections()
    app.middlewares.insert(0, idle.middleware)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, handler_cancellation=False)
    await runner.setup()
    assert runner.server is not None, "it was set up"
    tls = None if broker.certificate is None else broker.certificate.outer
    try:
        listener = await _bound(runner.server, host, port, tls)
        try:
            bound = listener.sockets[0].getsockname()[1]
            shown = f"[{host}]" if ":" in host else host
            with idle.watching(runner.server):
                yield f"{'http' if tls is None else 'https'}://{shown}:{bound}"
        finally:
            listener.close()
    finally:
        await runner.cleanup()


async def _bound(server: web.Server, host: str, port: int, tls: ssl.SSLContext | None) -> asyncio.Server:
    """The listener. aiohttp's own sites would wait a minute for the handshake of TLS."""
    try:
        return await asyncio.get_running_loop().create_server(
            server,
            host,
            port,
            ssl=tls,
            backlog=4096,
            reuse_address=True,
            ssl_handshake_timeout=None if tls is None else _TLS_S,
        )
    except OSError as error:
        raise StartRefused(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
