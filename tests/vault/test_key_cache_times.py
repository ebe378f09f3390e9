"""When a cached data key is proved again, when it goes, and that nothing of it stays."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from broker.vault.counters import VaultCounters
from broker.vault.errors import KeyUnavailable
from broker.vault.held_keys import HeldKey, HeldKeys
from broker.vault.needs import make_need
from kms.errors import Unavailable
from storage.records import DataKeyRecord


@pytest.mark.parametrize(("jitter", "due_s"), [(0.0, 240), (0.5, 300), (0.999, 359)])
async def test_a_key_is_proved_again_ahead_of_need(open_house: Any, jitter: float, due_s: int) -> None:
    """After its soft TTL, 300 s ± 20 %, the KMS is asked again, though no request waits for it."""
    async with open_house(jitter=lambda: jitter) as house:
        await house.put(b"value")
        asked = house.unwraps
        await house.clock.advance(due_s - 2)
        assert house.unwraps == asked
        await house.clock.advance(4)
        assert house.unwraps == asked + 1
        assert house.vault.counters.refreshes == 1


async def test_proving_again_never_makes_a_request_wait(open_house: Any) -> None:
    """While the KMS takes its time over a refresh, the key that it gave before serves without an await."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.kms[0].hold = asyncio.Event()
        await house.clock.advance(302)
        assert house.reveal(record) == b"value"
        house.kms[0].hold.set()
        await house.settle()
        assert house.reveal(record) == b"value"


async def test_a_key_nobody_uses_goes(open_house: Any) -> None:
    """A key that serves no request for the hard TTL is wiped, though its KMS has confirmed it all along."""
    async with open_house() as house:
        await house.put(b"value")
        await house.clock.advance(3590)
        assert len(house.vault._cache) == 1
        await house.clock.advance(20)
        assert len(house.vault._cache) == 0
        assert house.vault.counters.evictions["idle"] == 1


async def test_the_cache_is_bounded_and_lets_go_of_the_least_recently_used(open_house: Any) -> None:
    """At the bound, the key that has served nobody for the longest time is wiped."""
    async with open_house(entries_max=2) as house:
        first = await house.put(b"value", token="first")
        await house.add_data_key("dk-2")
        second = await house.put(b"value", token="second")
        house.reveal(first)
        await house.add_data_key("dk-3")
        third = await house.put(b"value", token="third")
        assert [house.reveal(record) is None for record in (first, second, third)] == [False, True, False]
        assert house.vault.counters.evictions["capacity"] == 1


async def test_a_changed_row_takes_its_cached_key_along(open_house: Any) -> None:
    """Once a data-key row has other wraps, what the earlier ones opened to is wiped within a sweep."""
    async with open_house(keys=2) as house:
        await house.put(b"value")
        house.data_keys["dk-1"] = await house.vault.rewrap(house.data_keys["dk-1"], [house.kms[1].uri])
        await house.clock.advance(2)
        assert len(house.vault._cache) == 0
        assert house.vault.counters.evictions["replaced"] == 1


async def test_flushing_wipes_everything_now(open_house: Any) -> None:
    """After flush() no key is in memory, and the next request asks the KMS."""
    async with open_house() as house:
        record = await house.put(b"value")
        held = house.vault._cache._held.all()[0]
        key = held.key
        house.vault.flush()
        assert (len(house.vault._cache), bytes(key), held.live) == (0, b"", False)
        assert house.reveal(record) is None


async def test_closing_wipes_everything(open_house: Any) -> None:
    """When the vault's context ends, no key is left, and what comes later is refused, not served."""
    async with open_house() as house:
        record = await house.put(b"value")
        key = house.vault._cache._held.all()[0].key
    assert bytes(key) == b""
    with pytest.raises(KeyUnavailable, match="stopping"):
        await house.vault.open(record)


async def test_a_process_that_was_frozen_does_not_serve_from_memory(open_house: Any) -> None:
    """Past its time, and without an outage to excuse it, a key does not serve even if no sweep could run."""
    async with open_house() as house:
        record = await house.put(b"value")
        house.clock._elapsed_s += 1000  # as after SIGSTOP: time has passed, and no task has run
        asked = house.unwraps
        assert house.reveal(record) is None
        house.fail(Unavailable("away"))
        assert (await house.vault.open(record)).reveal() == b"value"
        assert house.unwraps == asked + 1


def test_wiping_overwrites_before_it_lets_go() -> None:
    """The bytes are zero by the time the memory is given back."""
    seen: list[bytes] = []

    class Watched(bytearray):
        def clear(self) -> None:
            seen.append(bytes(self))
            super().clear()

    held_key(Watched(b"k" * 32)).wipe()
    assert seen == [bytes(32)]


def test_replacing_a_key_wipes_the_one_before() -> None:
    """A refreshed key does not leave its predecessor behind."""
    held = HeldKeys(entries_max=2, counters=VaultCounters())
    before, after = held_key(bytearray(b"k" * 32)), held_key(bytearray(b"k" * 32))
    held.put(before)
    held.put(after)
    assert (before.live, after.live, len(held)) == (False, True, 1)


def held_key(key: bytearray) -> HeldKey:
    return HeldKey(need=NEED, key=key, kms_key="", proved_at=0, refresh_at=1, fresh_until=2, hard_until=3)


RECORD = msgspec.convert(
    {
        "id": "dk",
        "keyring": "default",
        "state": "active",
        "created_at": "2026-01-01T00:00:00Z",
        "seals_reserved": 0,
        "commitment": "",
        "wraps": [],
    },
    DataKeyRecord,
)
NEED = make_need(record=RECORD, kms_keys=(), cluster_id="c")
