"""What a running broker shows on HTTP: the admin API, the workers' endpoint, probes and numbers, in one application."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from broker.api.application import make_api
from broker.api.services import Facts, make_services
from broker.readiness import make_checks
from broker.readouts import make_registry
from tokenbroker_client.wire import CONNECT_PATH

if TYPE_CHECKING:
    from broker.app import Broker


def make_app(broker: Broker) -> web.Application:
    """The HTTP application of one broker."""
    services = make_services(
        root=broker.root,
        instance=broker.settings.instance,
        clock=broker.clock,
        authority=broker.authority,
        storage=broker.storage,
        vault=broker.vault,
        tokens=broker.tokens,
        leases=broker.leases,
        uses=broker.uses,
        vkey=broker.journal.vkey,
        scratch=_scratch(broker),
        reveal_allowed=broker.settings.admin.reveal,
        facts=_facts(broker),
        replicas=lambda: broker.roll.known,
        settled=broker.feed.caught_up,
        site=broker.site,
    )
    app = make_api(services=services, checks=make_checks(broker), registry=make_registry(broker))
    app.router.add_get(CONNECT_PATH, broker.door.connect)
    return app


def _scratch(broker: Broker) -> Path:
    """Where backups and exports are prepared: beside an SQLite file, else the system's folder for temporary files."""
    if broker.settings.storage.scratch is not None:
        return broker.settings.storage.scratch
    url = broker.settings.storage.url
    return Path(url.removeprefix("sqlite:///")).parent if url.startswith("sqlite:") else Path(tempfile.gettempdir())


def _facts(broker: Broker) -> Callable[[], Awaitable[Facts]]:
    async def facts() -> Facts:
        return {
            "sessions": len(broker.sessions),
            "leases_held": len(broker.context.holdings),
            "tokens_cached": len(broker.context.heads.known),
            "audit_log": broker.journal.record.log,
            "feed_position": broker.feed.position,
        }

    return facts
