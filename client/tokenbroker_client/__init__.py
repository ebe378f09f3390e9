"""The asyncio client of a token broker: lease tokens, follow their rotations, never keep a timer.

    async with tokenbroker_client.connect(url, worker="ci-1", key="ci-1.key") as broker:
        async with broker.lease("github/ci") as lease:
            call_github(lease.value)

`sync` is the same for scripts without an event loop, `testing` a broker for apps' own tests, `wire` the protocol.
"""

from __future__ import annotations

from tokenbroker_client.backoff import Backoff
from tokenbroker_client.broker import Broker, connect
from tokenbroker_client.changes import Change, ChangeKind, Changes
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
