"""The asyncio client of a token broker: lease tokens, follow their rotations, never keep a timer.

    async with tokenbroker_client.connect(url, worker="ci-1", key="ci-1.key") as broker:
        async with broker.lease("github/ci") as lease:
            call_github(lease.value)

`sync` is the same for scripts without an event loop, `testing` a broker for apps' own tests, `wire` the protocol.

What connects is imported when it is first named: who wants an error or a frame needs neither HTTP nor cryptography.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from tokenbroker_client.backoff import Backoff
from tokenbroker_client.errors import (
    BadAddress,
    BadKey,
    BadRequest,
    BrokerError,
    ChangeRejected,
    Closed,
    ConnectionLost,
    Denied,
    Forbidden,
    Gone,
    Internal,
    KeyExposed,
    LeaseDenied,
    LeaseExpired,
    LeaseGone,
    LeaseReleased,
    LeaseRevoked,
    NotABroker,
    NotFound,
    NotText,
    PlaintextRefused,
    RateLimited,
    SessionRefused,
    Superseded,
    TimedOut,
    Unauthenticated,
    Unavailable,
    UntrustedCertificate,
    WrongCluster,
)

if TYPE_CHECKING:
    from tokenbroker_client.broker import Broker, connect
    from tokenbroker_client.changes import Change, ChangeKind, Changes
    from tokenbroker_client.keys import WorkerKey
    from tokenbroker_client.lease import Lease

__all__ = [
    "Backoff",
    "BadAddress",
    "BadKey",
    "BadRequest",
    "Broker",
    "BrokerError",
    "Change",
    "ChangeKind",
    "ChangeRejected",
    "Changes",
    "Closed",
    "ConnectionLost",
    "Denied",
    "Forbidden",
    "Gone",
    "Internal",
    "KeyExposed",
    "Lease",
    "LeaseDenied",
    "LeaseExpired",
    "LeaseGone",
    "LeaseReleased",
    "LeaseRevoked",
    "NotABroker",
    "NotFound",
    "NotText",
    "PlaintextRefused",
    "RateLimited",
    "SessionRefused",
    "Superseded",
    "TimedOut",
    "Unauthenticated",
    "Unavailable",
    "UntrustedCertificate",
    "WorkerKey",
    "WrongCluster",
    "connect",
]

_CONNECTING: Final = {
    "Broker": "broker",
    "Change": "changes",
    "ChangeKind": "changes",
    "Changes": "changes",
    "Lease": "lease",
    "WorkerKey": "keys",
    "connect": "broker",
}
"""Where a name is that is imported later."""


if not TYPE_CHECKING:  # a type checker would believe that every name is here

    def __getattr__(name: str) -> object:
        home = _CONNECTING.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_CONNECTING})
