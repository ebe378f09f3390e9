"""Failed handshakes by address: who is barred, for how long, and what the audit log is told."""

from __future__ import annotations

from broker.clock import FakeClock
from broker.session.attempts import Attempts


def attempts(clock: FakeClock) -> Attempts:
    return Attempts(clock=clock, failures_max=3, failures_s=60.0)


async def test_an_address_is_barred_after_its_failures_and_not_for_ever() -> None:
    """Three failures within the minute bar the address until the minute is over."""
    clock = FakeClock()
    tries = attempts(clock)
    for _ in range(3):
        assert not tries.barred("10.0.0.1")
        tries.failed("10.0.0.1", "signature", "ci-1")
    assert tries.barred("10.0.0.1")
    assert not tries.barred("10.0.0.2")
    await clock.advance(60.0)
    assert not tries.barred("10.0.0.1")


async def test_failures_of_an_earlier_window_do_not_count() -> None:
    """Two failures a minute, every minute, bar nobody."""
    clock = FakeClock()
    tries = attempts(clock)
    for _ in range(5):
        tries.failed("10.0.0.1", "signature", "ci-1")
        tries.failed("10.0.0.1", "signature", "ci-1")
        assert not tries.barred("10.0.0.1")
        await clock.advance(60.0)


async def test_like_failures_make_one_entry_that_is_followed_by_their_count() -> None:
    """The first is recorded at once; those of the next ten seconds are counted by the entry after them."""
    clock = FakeClock()
    tries = attempts(clock)
    first = tries.failed("10.0.0.1", "signature", "ci-1")
    assert first is not None
    assert (first.count, first.reason, first.source) == (1, "signature", "10.0.0.1")
    assert [tries.failed("10.0.0.1", "signature", "ci-1") for _ in range(4)] == [None] * 4
    await clock.advance(10.0)
    later = tries.failed("10.0.0.1", "signature", "ci-1")
    assert later is not None
    assert later.count == 5


async def test_another_reason_or_address_is_recorded_at_once() -> None:
    """Only like failures are counted together."""
    tries = attempts(FakeClock())
    assert tries.failed("10.0.0.1", "signature", "ci-1") is not None
    assert tries.failed("10.0.0.1", "unknown_key", "ci-1") is not None
    assert tries.failed("10.0.0.2", "signature", "ci-1") is not None


async def test_addresses_are_bounded_and_the_oldest_leave_first() -> None:
    """A flood of addresses makes the broker forget old ones, not grow."""
    tries = attempts(FakeClock())
    for _ in range(3):
        tries.failed("10.9.9.9", "signature", "ci-1")
    for number in range(8191):
        tries.failed(f"10.1.{number // 256}.{number % 256}", "signature", "ci-1")
    assert tries.barred("10.9.9.9")
    tries.failed("10.8.8.8", "signature", "ci-1")
    assert not tries.barred("10.9.9.9")
    assert max(len(tries._failures), len(tries._noted)) <= 8192


async def test_one_network_of_ipv6_is_one_source() -> None:
    """Whoever has a network of 64 bits has as many addresses as he likes, and one account of failures."""
    tries = attempts(FakeClock())
    entries = [tries.failed(f"2001:db8::{number:x}", "signature", "ci-1") for number in range(1, 4)]
    assert tries.barred("2001:db8::ffff")
    assert not tries.barred("2001:db8:0:1::1")
    assert [entry.source for entry in entries if entry is not None] == ["2001:db8::1"]


async def test_whoever_has_many_addresses_fills_no_log() -> None:
    """All sources together get fifty entries at once and then two a second; what had none is counted by the next."""
    clock = FakeClock()
    tries = attempts(clock)

    def flood() -> int:
        tried = (tries.failed(f"10.1.{number // 256}.{number % 256}", "deadline", "") for number in range(1000))
        return sum(entry is not None for entry in tried)

    assert flood() == 50
    assert flood() == 0
    await clock.advance(10.0)
    last = tries.failed("10.1.3.231", "deadline", "")
    assert last is not None
    assert last.count == 3
    assert flood() == 19
