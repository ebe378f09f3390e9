"""The plain client: leases for scripts without an event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

import pytest

from tokenbroker_client import (
    BadRequest,
    ChangeKind,
    Closed,
    Denied,
    LeaseReleased,
    LeaseRevoked,
    Unauthenticated,
    WorkerKey,
    sync,
)
from tokenbroker_client.testing import FakeBroker
from tokenbroker_client.wire import ReportEvent

T = TypeVar("T")


class ThreadedFake:
    """A fake broker on a thread of its own, as another process would be."""

    def __init__(self) -> None:
        self.fake = FakeBroker()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.run(self.fake.start)
        self.fake.put("github/ci", "v1")

    def run(self, work: Callable[[], object]) -> object:
        """Run something on the broker's thread."""

        async def call() -> object:
            result = work()
            return await result if asyncio.iscoroutine(result) else result

        future: Future[object] = asyncio.run_coroutine_threadsafe(call(), self.loop)
        return future.result(timeout=10)

    def close(self) -> None:
        """Stop the broker and its thread."""
        self.run(self.fake.stop)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def threaded() -> Iterator[ThreadedFake]:
    """Return a fake broker that a blocking test can talk to."""
    broker = ThreadedFake()
    yield broker
    broker.close()


def test_a_script_leases_a_token(threaded: ThreadedFake) -> None:
    """One `with` gives the value, and gives the lease back at its end."""
    key = threaded.fake.worker_key("ci-1")
    with sync.lease(threaded.fake.url, key=key, token="github/ci", ttl_s=60) as lease:
        assert (lease.value, lease.value_bytes, lease.version, lease.token) == ("v1", b"v1", 1, "github/ci")
        assert "v1" not in repr(lease)
    assert [entry.code for entry in threaded.fake.leases] == ["released"]
    with pytest.raises((Closed, LeaseReleased)):
        _ = lease.value


def test_a_rotation_reaches_a_script(threaded: ThreadedFake) -> None:
    """The value is the current one while the script does other things, and it can wait for a change."""
    with sync.lease(threaded.fake.url, key=threaded.fake.worker_key("ci-1"), token="github/ci") as lease:
        assert lease.wait_for_change(within_s=0.01) is None
        threaded.run(lambda: threaded.fake.rotate("github/ci", "v2"))
        change = lease.wait_for_change(within_s=5)
        assert change is not None
        assert (change.kind, lease.value) == (ChangeKind.ROTATED, "v2")


def test_a_script_reports_on_the_value(threaded: ThreadedFake) -> None:
    """All three reports arrive; a pause out of bounds is refused in the script's own thread."""
    with sync.lease(threaded.fake.url, key=threaded.fake.worker_key("ci-1"), token="github/ci") as lease:
        lease.report_rejected()
        lease.report_rate_limited(retry_after_s=5)
        lease.report_ok()
        threaded.run(lambda: threaded.fake.wait_for_report("github/ci", ReportEvent.OK))
        assert [seen.event for seen in threaded.fake.reports] == ["rejected", "rate_limited", "ok"]
        with pytest.raises(BadRequest):
            lease.report_rate_limited(retry_after_s=-1)


def test_a_revocation_reaches_a_script(threaded: ThreadedFake) -> None:
    """After a revocation reading raises as in the asyncio client."""
    with sync.lease(threaded.fake.url, key=threaded.fake.worker_key("ci-1"), token="github/ci") as lease:
        threaded.run(lambda: threaded.fake.revoke("github/ci"))
        change = lease.wait_for_change(within_s=5)
        assert change is not None
        assert change.kind is ChangeKind.REVOKED
        assert lease.wait_for_change(within_s=5) is None
        with pytest.raises(LeaseRevoked):
            _ = lease.value


def test_one_connection_serves_several_leases(threaded: ThreadedFake) -> None:
    """A script that needs several tokens connects once."""
    threaded.fake.put("db/password", "p")
    with (
        sync.connect(threaded.fake.url, key=threaded.fake.worker_key("ci-1")) as broker,
        broker.lease("github/ci") as first,
        broker.lease("db/password") as second,
    ):
        assert (first.value, second.value) == ("v1", "p")
    assert threaded.fake.attempts == 1


def test_refusals_are_the_same_types(threaded: ThreadedFake) -> None:
    """What the asyncio client raises, this one raises in the caller's thread."""
    key = threaded.fake.worker_key("ci-1")
    with pytest.raises(Denied), sync.lease(threaded.fake.url, key=key, token="no/such"):
        pass
    other = WorkerKey.generate(worker="ci-1")
    with pytest.raises(Unauthenticated), sync.lease(threaded.fake.url, key=other, token="github/ci"):
        pass


def test_no_thread_is_left_behind(threaded: ThreadedFake) -> None:
    """Each block ends its thread, also when it failed to begin."""
    key = threaded.fake.worker_key("ci-1")
    before = threading.active_count()
    for token in ("github/ci", "no/such"):
        try:
            with sync.lease(threaded.fake.url, key=key, token=token):
                assert "tokenbroker-client" in [thread.name for thread in threading.enumerate()]
        except Denied:
            continue
    assert threading.active_count() == before


def test_what_the_block_raises_passes_through(threaded: ThreadedFake) -> None:
    """A script's own exception is not wrapped, and the lease is given back."""
    key = threaded.fake.worker_key("ci-1")
    with pytest.raises(KeyError), sync.lease(threaded.fake.url, key=key, token="github/ci"):
        raise KeyError("mine")
    assert [entry.code for entry in threaded.fake.leases] == ["released"]


def test_reading_is_quick(threaded: ThreadedFake) -> None:
    """A script may read the value for each call it makes: a thousand reads take less than a second."""
    with sync.lease(threaded.fake.url, key=threaded.fake.worker_key("ci-1"), token="github/ci") as lease:
        began = time.monotonic()
        for _ in range(1000):
            assert lease.value == "v1"
        assert time.monotonic() - began < 1.0
