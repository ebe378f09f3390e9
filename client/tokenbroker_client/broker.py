"""The way in: `connect` to a broker, and `lease` tokens from it."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal

import msgspec

from tokenbroker_client.acknowledger import Acknowledger
from tokenbroker_client.backoff import Backoff
from tokenbroker_client.changes import Handler
from tokenbroker_client.dialler import open_dialler
from tokenbroker_client.elapsed import elapsed_s
from tokenbroker_client.endpoint import parse_endpoint
from tokenbroker_client.errors import BadRequest, BrokerError, ConnectionLost
from tokenbroker_client.handshake import Identity
from tokenbroker_client.keeper import Keeper
from tokenbroker_client.keys import WorkerKey
from tokenbroker_client.lease import Lease
from tokenbroker_client.link import Link
from tokenbroker_client.roster import Roster
from tokenbroker_client.wire import LeaseRequest, Stage, WorkerName

_BACKOFF: Final = Backoff()


class Broker:
    """A connection that heals itself, and the leases that live on it."""

    def __init__(self, *, worker: str, link: Link, keeper: Keeper) -> None:
        self.worker = worker
        self._link = link
        self._keeper = keeper

    @property
    def connected(self) -> bool:
        """Whether requests would be sent at once; while this is false, values stay readable until their leases end."""
        return self._link.connected is not None

    @property
    def cluster(self) -> str:
        """The cluster this broker belongs to."""
        return self._link.cluster or ""

    @property
    def failure(self) -> BrokerError | None:
        """Why the client has stopped trying for good; None while it has not."""
        return self._link.failure

    @asynccontextmanager
    async def lease(
        self,
        token: str,
        *,
        ttl_s: float | None = None,
        stage: Literal["current", "previous"] = "current",
        wait_s: float | None = None,
        on_change: Handler | None = None,
    ) -> AsyncIterator[Lease]:
        """Lease a token for as long as the block is open, for any length of time.

        `ttl_s` bounds how long the value outlives a broken connection (0 < ttl_s ≤ 31 days; None: the grant's default).
        `stage="previous"` leases the version before the current one, where a grant allows it: for those who check what
        others sign or send, and have to accept both. `wait_s` is how long to stand in line (0 ≤ wait_s ≤ 300) for a
        token that only so many may lease at once; None: not at all. It stands there again
        when its lease was lost. `on_change` is the first handler, see
        `Lease.on_change`. Blocks on the same token and stage share one lease, which is released, and the value wiped,
        when the last of them is left.

        Raises BadRequest, Denied, NotFound, RateLimited, Unavailable and Internal as the broker answers,
        ConnectionLost or TimedOut after the request deadline and `wait_s`, SessionRefused when the client has stopped
        trying, and Closed after the `connect` block. Nothing is asked again unless the connection broke.
        """
        _require_askable(token, ttl_s, stage, wait_s)
        holding = await self._keeper.acquire(token, ttl_s, Stage(stage), wait_s)
        lease = Lease(holding=holding, keeper=self._keeper)
        try:
            if on_change is not None:
                lease.on_change(on_change)
            yield lease
        finally:
            lease.leave()
            await self._keeper.surrender(holding)


@asynccontextmanager
async def connect(
    url: str,
    *,
    key: WorkerKey | str | os.PathLike[str],
    worker: str | None = None,
    cluster: str | None = None,
    tls: ssl.SSLContext | None = None,
    insecure_plaintext: bool = False,
    connect_s: float = 30.0,
    request_s: float = 10.0,
    backoff: Backoff = _BACKOFF,
    elapsed: Callable[[], float] = elapsed_s,
) -> AsyncIterator[Broker]:
    """Connect as a worker, and stay connected while the block is open.

    `key` is a WorkerKey or its file; `worker` and `cluster` default to what that file names. With a `cluster` nothing
    is ever signed for another; without, the first one met is the one. The block starts when there is a session, after
    at most `connect_s` seconds; later losses are healed in the background, with resumed leases. A request may take
    `request_s` seconds in all. `elapsed` counts the leases' seconds.

    Raises BadAddress, PlaintextRefused and BadKey for the arguments, SessionRefused when the broker will not have this
    worker, and ConnectionLost when there was no session in time. What the block raises passes through unchanged.
    """
    held_key = key if isinstance(key, WorkerKey) else WorkerKey.load(key)
    identity = Identity(worker=_worker_name(worker, held_key), key=held_key, client=_client_name())
    endpoint = parse_endpoint(url, insecure_plaintext=insecure_plaintext)
    failure: BaseException | None = None
    async with (
        open_dialler(endpoint=endpoint, identity=identity, tls=tls, elapsed=elapsed) as dialler,
        asyncio.TaskGroup() as tasks,
    ):
        link = Link(dialler=dialler, backoff=backoff, cluster=cluster or held_key.cluster, elapsed=elapsed)
        acks = Acknowledger(link=link)
        roster = Roster(elapsed=elapsed)
        keeper = Keeper(
            link=link,
            roster=roster,
            acks=acks,
            tasks=tasks,
            backoff=backoff,
            request_s=request_s,
            elapsed=elapsed,
        )
        running = (tasks.create_task(link.run(keeper)), tasks.create_task(acks.run()))
        try:
            await _first_session(link, connect_s)
            yield Broker(worker=identity.worker, link=link, keeper=keeper)
        except asyncio.CancelledError:
            raise  # the group may have cancelled this task itself, and knows what to make of it
        except BaseException as error:  # noqa: BLE001 - raised again below, where the group cannot wrap it
            failure = error
        finally:
            await keeper.close()
            link.close()
            for task in running:
                task.cancel()
    if failure is not None:
        try:
            raise failure
        finally:
            failure = None  # it holds this frame, which must not hold it


async def _first_session(link: Link, connect_s: float) -> None:
    try:
        async with asyncio.timeout(connect_s):
            await link.usable()
    except TimeoutError:
        loss = link.last_loss or "it did not answer"
        raise ConnectionLost(f"there was no session with the broker within {connect_s:g} s: {loss}") from None


def _worker_name(worker: str | None, key: WorkerKey) -> str:
    name = worker if worker is not None else key.worker
    if name is None:
        raise BadRequest("the key file names no worker, so the name must be given: worker=…")
    try:
        return msgspec.convert(name, WorkerName)
    except msgspec.ValidationError:
        raise BadRequest(f"{name!r} is no worker name ([a-z0-9][a-z0-9._-]{{0,62}})") from None


def _require_askable(token: str, ttl_s: float | None, stage: str, wait_s: float | None) -> None:
    asked = {"type": "lease", "id": 0, "token": token, "ttl_s": ttl_s, "stage": stage, "wait_s": wait_s}
    try:
        msgspec.convert(asked, LeaseRequest)
    except msgspec.ValidationError:
        raise BadRequest(
            f"cannot ask for {token!r} with ttl_s={ttl_s!r}, stage={stage!r} and wait_s={wait_s!r}: a token name has 1 "
            "to 8 segments of [a-z0-9][a-z0-9._-]{0,62}, joined by `/`, a ttl_s lies above 0 and within 31 days, a "
            "stage is current or previous, and a wait_s is 0 to 300"
        ) from None


def _client_name() -> str:
    try:
        return f"tokenbroker-client/{version('tokenbroker-client')}"
    except PackageNotFoundError:
        return "tokenbroker-client/unknown"
