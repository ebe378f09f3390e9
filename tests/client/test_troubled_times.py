"""Whatever order troubles come in, a client ends up with the broker's current value and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenbroker_client import Backoff, Lease, LeaseExpired, connect
from tokenbroker_client.testing import FakeBroker, HandClock
from tokenbroker_client.wire import CloseCode, ErrorCode

QUICK = Backoff(first_s=0.001, most_s=0.01)
TROUBLES = st.lists(
    st.sampled_from(
        [
            "rotate",
            "put",
            "cut",
            "restart",
            "close",
            "goaway",
            "renew",
            "refuse",
            "expire here",
            "expire there",
            "turn",
            "nonsense",
        ]
    ),
    max_size=10,
)


async def befall(trouble: str, fake: FakeBroker, clock: HandClock, step: int) -> None:
    """Let one trouble come over the client."""
    deeds: dict[str, Callable[[], Awaitable[object]]] = {
        "rotate": lambda: fake.rotate("github/ci", f"v{step}"),
        "cut": fake.drop_connections,
        "close": lambda: fake.drop_connections(CloseCode.RESTARTING),
        "goaway": lambda: fake.goaway(reconnect_in_s=0.0),
        "renew": fake.renew,
        "nonsense": lambda: fake.send_text("nonsense"),
        "turn": lambda: asyncio.sleep(0.002),
    }
    if trouble in deeds:
        await deeds[trouble]()
    elif trouble == "put":
        fake.put("github/ci", f"p{step}")
        await fake.drop_connections()
    elif trouble == "restart":
        await fake.stop()
        await fake.start()
    elif trouble == "refuse":
        fake.refuse_next(ErrorCode.UNAVAILABLE, retry_after_s=0.0)
    elif trouble == "expire here":
        clock.advance(301)
    elif trouble == "expire there":
        for lease in fake.live_leases:
            lease.code = "expired"
        await fake.drop_connections()


async def live_through(troubles: list[str]) -> None:
    """Hold a lease through the troubles, then demand the current value."""
    clock = HandClock()
    async with FakeBroker(heartbeat_s=3600) as fake:
        fake.put("github/ci", "first")
        key = fake.worker_key("ci-1")
        async with (
            connect(fake.url, key=key, backoff=QUICK, elapsed=clock) as broker,
            broker.lease("github/ci") as lease,
        ):
            for step, trouble in enumerate(troubles):
                await befall(trouble, fake, clock, step)
            expected = fake._state.tokens["github/ci"].value.decode()
            async with asyncio.timeout(10):
                while not broker.connected or _read(lease) != expected:  # noqa: ASYNC110 - several things move it
                    await asyncio.sleep(0.001)
        own = [entry for entry in fake.live_leases if entry.session in {s.session for s in fake._sessions}]
        assert own == []


def _read(lease: Lease) -> str | None:
    try:
        return lease.value
    except LeaseExpired:
        return None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TROUBLES)
def test_a_client_comes_through(troubles: list[str]) -> None:
    """After rotations, cuts, restarts, refusals and expiries in any order the app reads the current value."""
    asyncio.run(live_through(troubles))
