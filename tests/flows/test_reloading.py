"""A broker under load takes over other KMS keys and keyrings, all of it or nothing, and refuses nobody meanwhile."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from broker.audit.entries import ConfigurationReloaded, KeyChanged
from broker.errors import BrokerError, Conflict, StartRefused
from broker.settings import Settings, load_settings
from kms.errors import Unavailable
from kms.local import State, create_key_file, set_state
from storage.port import Commit
from storage.records import RootRecord


@pytest.fixture
def key(tmp_path: Path) -> Callable[[str], str]:
    """Makes a local KMS key of this name; its URI."""

    def make(name: str) -> str:
        create_key_file(tmp_path / name)
        return f"local:{tmp_path / name}"

    return make


def wanted(house: Any, *keys: str, more: str = "") -> Settings:
    """The configuration file of the house with these KMS keys, and more sections behind; read as at a reload."""
    text = re.sub(r"(?m)^keys = .*$", f"keys = [{', '.join(map(repr, keys))}]", house.config.read_text())
    house.config.write_text(text.partition("\n[keyrings")[0] + "\n" + more)
    return load_settings(house.config, house.environ)


def first(house: Any) -> str:
    """The KMS key that the house was founded with."""
    uri: str = house.settings.kms.keys[0]
    return uri


async def reload(house: Any, *keys: str, more: str = "") -> None:
    await house.broker.reloading.apply(wanted(house, *keys, more=more))


async def rewrap(house: Any) -> None:
    """Wrap every data key and the root key by the KMS keys that are configured now."""
    broker = house.broker
    for record in broker.authority.data_keys:
        keyring = broker.authority.keyrings.get((record.keyring,))
        fresh = await broker.vault.rewrap(record, broker.vault.kms_keys(keyring))
        entry = KeyChanged(at=broker.clock.now(), actor="admin:root", keyring=record.keyring, change="rewrapped")
        await broker.authority.commit([entry], updates=[fresh])
    root = await house.storage.get(RootRecord, ("root",))
    await house.storage.commit(Commit(updates=(await broker.vault.rewrap_root(root, broker.root),)))


async def leases(house: Any, welcomed: Any) -> str:
    """What a worker that comes now is given."""
    async with welcomed(house) as worker:
        value: str = (await worker.lease("github/ci"))["value"]
        return value


async def test_a_kms_key_that_entered_wraps_what_is_made_from_then_on(house: Any, key: Any, welcomed: Any) -> None:
    """The next data key has a wrap of each; what was cached serves on without asking a KMS."""
    second = key("second.key")
    misses = house.broker.vault.counters.misses
    await reload(house, first(house), second)
    assert await leases(house, welcomed) == "s3cret"
    assert house.broker.vault.counters.misses == misses
    rotated = await house.services.keys.rotate("default", actor="admin:root")
    assert [wrap.kms_key for wrap in rotated.data_key.wraps] == [first(house), second]


async def test_a_cluster_moves_to_another_kms_without_a_restart(house: Any, key: Any, welcomed: Any) -> None:
    """Enter, rewrap, leave: the former KMS key is closed, and everything opens without it."""
    before, second = first(house), key("second.key")
    await reload(house, before, second)
    await rewrap(house)
    await reload(house, second)
    assert list(house.broker.kms) == [second]
    house.broker.vault.flush()
    assert await leases(house, welcomed) == "s3cret"
    assert [known.kms_key for known in house.broker.vault.health()] == [second]


async def test_a_reload_that_would_strand_a_data_key_changes_nothing(house: Any, key: Any, welcomed: Any) -> None:
    """Keyring, data key, the KMS key that opens it and the remedy are named; the running state is what it was."""
    second = key("second.key")
    stranded = house.services.keys.keyring("default").active_data_key
    with pytest.raises(StartRefused, match=r"no key in kms\.keys has wrapped the root key"):
        await reload(house, second)
    root = await house.storage.get(RootRecord, ("root",))
    await reload(house, first(house), second)
    await house.storage.commit(Commit(updates=(await house.broker.vault.rewrap_root(root, house.broker.root),)))
    with pytest.raises(StartRefused) as caught:
        await reload(house, second)
    for told in ("keyring default", stranded, first(house), "key rewrap default", "then take it out"):
        assert told in str(caught.value)
    assert list(house.broker.kms) == [first(house), second]
    house.broker.vault.flush()
    assert await leases(house, welcomed) == "s3cret"


async def test_a_broker_does_not_start_where_a_data_key_would_not_open(open_house: Any, prepare: Any, key: Any) -> None:
    """What a reload refuses, a start refuses with the same words."""
    second = key("second.key")
    async with open_house() as house:
        await prepare(house)
        await reload(house, first(house), second)
        root = await house.storage.get(RootRecord, ("root",))
        await house.storage.commit(Commit(updates=(await house.broker.vault.rewrap_root(root, house.broker.root),)))
        wanted(house, second)
    with pytest.raises(StartRefused, match="no KMS key of keyring default opens its data keys"):
        async with open_house():
            pass


@pytest.mark.parametrize("trouble", ["missing", "disabled", "unknown"])
async def test_a_kms_key_that_does_not_work_never_enters(house: Any, key: Any, welcomed: Any, trouble: str) -> None:
    """One bad key among good ones: none enters, the error says which it is, and the state is what it was."""
    good, bad = key("good.key"), key("bad.key")
    path = Path(bad.removeprefix("local:"))
    if trouble == "missing":
        path.unlink()
    elif trouble == "disabled":
        set_state(path, 1, State.DISABLED)
    else:
        bad = "nobody-knows:this"
    with pytest.raises(StartRefused, match=r"kms\.keys number 3"):
        await reload(house, first(house), good, bad)
    assert list(house.broker.kms) == [first(house)]
    assert await leases(house, welcomed) == "s3cret"
    assert await house.entries(ConfigurationReloaded) == []


async def test_keyrings_follow_the_configuration(house: Any, key: Any) -> None:
    """A keyring is made, gets other KMS keys and another mode, and its cache policy, each by a reload."""
    second = key("second.key")
    await reload(house, first(house), more=f'[keyrings.payments]\nkms_keys = ["{second}"]\n')
    ring = house.services.keys.keyring("payments")
    assert (ring.kms_keys, ring.authorize) == ((second,), "broker")
    both = f'[keyrings.payments]\nkms_keys = ["{second}", "{first(house)}"]\nauthorize = "kms"\nstrict = true\n'
    await reload(house, first(house), more=both)
    ring = house.services.keys.keyring("payments")
    assert (ring.kms_keys, ring.authorize) == ((second, first(house)), "kms")


async def test_a_keyring_that_turns_strict_keeps_nothing(house: Any) -> None:
    """Cache settings hold from the reload on, for what is in memory too."""
    assert house.broker.vault.cached_keys() == 1
    await reload(house, first(house), more="[keyrings.default]\nstrict = true\n")
    assert house.broker.vault.cached_keys() == 0


async def test_a_bound_that_is_wrong_is_refused(house: Any, key: Any) -> None:
    """A cache policy that would switch a protection off is refused before anything is opened."""
    with pytest.raises(StartRefused, match="hard TTL of keyring default"):
        await reload(house, first(house), key("second.key"), more='[keyrings.default]\ncache_hard_ttl = "1s"\n')
    assert list(house.broker.kms) == [first(house)]


async def test_who_came_and_who_went_is_on_record(house: Any, key: Any) -> None:
    """The audit log names keyrings and KMS keys of a reload that changed something, and says nothing of others."""
    second = key("second.key")
    await reload(house, first(house), more=f'[keyrings.payments]\nkms_keys = ["{second}"]\n')
    await reload(house, first(house), more=f'[keyrings.payments]\nkms_keys = ["{second}"]\n')
    await reload(house, second, first(house), more=f'[keyrings.payments]\nkms_keys = ["{second}"]\n')
    made, reordered = await house.entries(ConfigurationReloaded)
    assert (made.actor, made.keyrings, made.opened, made.closed) == ("system", ("payments",), (second,), ())
    assert (reordered.keyrings, reordered.kms_keys, reordered.opened) == ((), (second, first(house)), ())
    assert (await house.verified()).ok


async def test_other_sections_wait_for_a_restart(house: Any, key: Any) -> None:
    """A change that a reload does not take over is named in the log, and the rest is taken over."""
    second = key("second.key")
    with capture_logs() as logs:
        await reload(house, first(house), second, more="[leases]\nper_session = 7\n")
    assert [line["setting"] for line in logs if line["event"] == "needs_a_restart"] == ["leases.per_session"]
    assert second in house.broker.kms


async def test_a_reload_that_cannot_be_recorded_leaves_the_state_before(house: Any, key: Any, welcomed: Any) -> None:
    """The database is away: an error, the configuration before stays in force, and the next reload succeeds."""
    second = key("second.key")
    house.storage.refuse = lambda commit: True
    with pytest.raises((BrokerError, Unavailable)):
        await reload(house, second, first(house))
    assert house.broker.kms.defaults == (first(house),)
    house.storage.refuse = lambda commit: False
    assert await leases(house, welcomed) == "s3cret"
    await reload(house, second, first(house))
    assert house.broker.kms.defaults == (second, first(house))


async def test_no_lease_is_refused_while_kms_keys_come_and_go(house: Any, key: Any, welcomed: Any) -> None:
    """Workers lease and release in a loop, with a cold cache again and again, through thirty reloads."""
    here, there = first(house), key("there.key")
    await reload(house, here, there)
    await rewrap(house)
    going = True
    given = 0

    async def work() -> None:
        nonlocal given
        async with welcomed(house) as worker:
            while going:
                answer = await worker.lease("github/ci")
                given += 1
                await worker.ask("release", lease=answer["lease"])

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(work())
        for _ in range(10):
            for keys in ((there,), (there, here), (here,)):
                house.broker.vault.flush()
                await reload(house, *keys)
                before = given
                await house.until(lambda before=before: given > before)
        going = False
    assert given > 30


async def test_data_keys_in_memory_outlive_their_kms_keys_company(house: Any, key: Any, welcomed: Any) -> None:
    """Whoever else comes, goes or changes places: while the KMS key that gave a data key stays, no KMS is asked."""
    second = key("second.key")
    await reload(house, first(house), second)
    await rewrap(house)
    await house.settled()
    assert await leases(house, welcomed) == "s3cret"
    misses = house.broker.vault.counters.misses
    for keys in ((second, first(house)), (first(house),), (first(house), second)):
        await reload(house, *keys)
        assert await leases(house, welcomed) == "s3cret"
    assert house.broker.vault.counters.misses == misses


async def test_a_moved_key_file_is_proved_before_it_is_believed(house: Any, key: Any, welcomed: Any) -> None:
    """The same key under another path enters alone; another key of the same kind does not."""
    path = Path(first(house).removeprefix("local:"))
    moved = path.with_name("moved.key")
    moved.write_bytes(path.read_bytes())
    moved.chmod(0o600)
    await reload(house, f"local:{moved}")
    assert list(house.broker.kms) == [f"local:{moved}"]
    house.broker.vault.flush()
    assert await leases(house, welcomed) == "s3cret"
    with pytest.raises(StartRefused):
        await reload(house, key("stranger.key"))


class Slow:
    """A KMS key whose wraps wait, once they are told to."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.hold: asyncio.Event | None = None
        self.reached = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def wrap(self, *arguments: Any) -> Any:
        if self.hold is not None:
            self.reached.set()
            await self.hold.wait()
        return await self._inner.wrap(*arguments)


async def test_a_data_key_made_for_the_configuration_before_is_not_kept(
    open_house: Any, prepare: Any, key: Any
) -> None:
    """A rotation that began before a reload and ends after it is refused: nothing might open what it made."""
    slow: list[Slow] = []

    def slowly(opened: Any) -> Any:
        slow.append(Slow(opened))
        return slow[-1]

    async with open_house(kms=slowly) as house:
        await prepare(house)
        before = house.services.keys.keyring("default").active_data_key
        slow[0].hold = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            rotating = group.create_task(outcome(house.services.keys.rotate("default", actor="admin:root")))
            await slow[0].reached.wait()
            await reload(house, first(house), key("second.key"))
            slow[0].hold.set()
        assert isinstance(rotating.result(), Conflict)
        assert house.services.keys.keyring("default").active_data_key == before


async def outcome(call: Any) -> Any:
    """What the call gives, or the error that it raises."""
    try:
        return await call
    except BrokerError as error:
        return error


def test_entries_stay_within_their_bound() -> None:
    """A reload of a thousand keyrings is told in entries that the log takes, and none of it is left out."""
    from broker.audit.encoding import encode
    from broker.clock import SystemClock
    from broker.reloading import Reloading

    names = [f"ring-{number:0>50}" for number in range(1000)]
    sections = {name: {"kms_keys": [f"local:/{'k' * 900}/{name}"]} for name in names}
    reloading = Reloading.__new__(Reloading)
    reloading._clock = SystemClock()
    entries = list(reloading._entries(Settings(), Settings.model_validate({"keyrings": sections})))
    assert all(len(encode(entry)) <= 65_535 for entry in entries)
    assert [name for entry in entries for name in entry.keyrings] == names
    assert sum(len(entry.opened) for entry in entries) == 1000
    assert msgspec.json.encode(entries[0])


async def test_a_kms_key_that_is_away_at_the_start_comes_in_later(
    open_house: Any, prepare: Any, welcomed: Any, key: Any, clock: Any
) -> None:
    """A broker starts while one of its KMS keys is away, serves by the other, and opens it when it answers."""
    second = key("second.key")
    async with open_house() as house:
        await prepare(house)
        await reload(house, first(house), second)
        await rewrap(house)
        known = dict(house.workers)
    away = True

    def moody(opened: Any) -> Any:
        if away and opened.uri == second:
            raise Unavailable("no route to it", kms_key=second)
        return opened

    async with open_house(clock=clock, kms=moody) as house:
        house.workers.update(known)
        assert list(house.broker.kms.away()) == [second]
        assert await leases(house, welcomed) == "s3cret"
        away = False
        await house.elapse(10)
        await house.until(lambda: not house.broker.kms.away())
        rotated = await house.services.keys.rotate("default", actor="admin:root")
        assert [wrap.kms_key for wrap in rotated.data_key.wraps] == [first(house), second]


async def test_without_any_of_its_kms_keys_a_broker_does_not_start(open_house: Any) -> None:
    """When none of kms.keys can be opened, the start is refused with what they said."""

    def away(opened: Any) -> Any:
        raise Unavailable("no route to it", kms_key=opened.uri)

    with pytest.raises(StartRefused, match="no route to it"):
        async with open_house(kms=away):
            pass
