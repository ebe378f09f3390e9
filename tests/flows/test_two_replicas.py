"""Two replicas on one PostgreSQL: what is done on one, workers and operators of the other see within a second."""

from __future__ import annotations

import asyncio
import time
import tomllib
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.clock import SystemClock
from broker.doctor.examining import examine
from broker.setup.initialising import initialise
from broker.setup.layout import Layout
from storage.records import KeyringRecord

ROOT = "admin:root"
SOON_S = 1.0


def named(shared: Path, instance: str) -> Path:
    """The configuration of a replica of that name."""
    config = shared.with_name(f"{instance}.toml")
    config.write_text(f'{shared.read_text()}\n[server]\ninstance = "{instance}"\n')
    config.chmod(0o600)
    return config


async def pushed(worker: Any, began: float) -> Any:
    """The next push, which came within a second of `began`."""
    frame = await worker.push()
    assert time.monotonic() - began < SOON_S
    return frame


async def test_a_rotation_reaches_workers_of_the_other(pair: Any, welcomed: Any) -> None:
    """The new value, within a second of its being put."""
    one, two = pair
    async with welcomed(two) as worker:
        await worker.lease("github/ci")
        began = time.monotonic()
        await one.put("github/ci", b"two")
        frame = await pushed(worker, began)
        assert (frame["type"], frame["value"], frame["version"]) == ("rotated", "two", 2)


async def test_a_revocation_reaches_workers_of_the_other_and_is_waited_for(pair: Any, welcomed: Any) -> None:
    """The revoker hears that the other replica's worker wiped it."""
    one, two = pair
    async with welcomed(two) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        began = time.monotonic()
        revoking = asyncio.create_task(  # noqa: TID251 - it runs beside the worker whom it waits for
            one.broker.leases.revoke(lease=None, token="github/ci", worker=None, reason="leaked", actor=ROOT, wait_s=10)
        )
        frame = await pushed(worker, began)
        assert (frame["type"], frame["leases"]) == ("revoked", [lease])
        assert not revoking.done()
        await worker.send(type="ack", lease=lease, status="wiped", version=1)
        report = await revoking
        assert [ref.lease for ref in report.wiped] == [lease]
        assert report.missing == ()


async def test_each_lists_the_sessions_and_leases_of_both(pair: Any, welcomed: Any) -> None:
    """Who is connected where, and who holds what, is the same answer everywhere."""
    one, two = pair
    async with welcomed(one) as first, welcomed(two) as second:
        held = {(await first.lease("github/ci"))["lease"], (await second.lease("github/ci"))["lease"]}
        for house in pair:
            page = await house.broker.leases.list_leases(
                token=None, worker=None, at=None, include_ended=False, after=None, limit=10
            )
            assert {row.lease for row in page.records} == held
            listed = await house.services.sessions.list_sessions(worker=None, include_ended=False, after=None, limit=10)
            assert {(row.session, row.instance) for row in listed.page.records} == {
                (first.welcome["session"], "one"),
                (second.welcome["session"], "two"),
            }


async def test_an_acknowledgement_is_seen_on_both(pair: Any, welcomed: Any) -> None:
    """What a worker of one replica has applied, the other one's operator reads."""
    one, two = pair
    async with welcomed(two) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        await one.put("github/ci", b"two")
        await worker.push()
        await worker.send(type="ack", lease=lease, status="applied", version=2)

        async def seen() -> bool:
            return (await one.row(lease)).acked_version == 2

        await one.until(seen)


async def test_disabling_a_worker_ends_its_sessions_on_the_other(pair: Any, welcomed: Any) -> None:
    """Its leases are revoked, its connection is closed, and it is not let in again, anywhere."""
    one, two = pair
    async with welcomed(two) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
        began = time.monotonic()
        await one.services.workers.disable("ci-1", actor=ROOT)
        assert (await pushed(worker, began))["type"] == "revoked"
        assert await worker.close_code() == 4403
        assert (await one.row(lease)).state == "revoked"


async def test_removing_a_grant_revokes_on_the_other(pair: Any, welcomed: Any) -> None:
    """What no grant covers any more is revoked where it is held, and not given again."""
    one, two = pair
    async with welcomed(two) as worker:
        await worker.lease("github/ci")
        began = time.monotonic()
        await one.services.grants.remove(one.granted.id, actor=ROOT)
        assert (await pushed(worker, began))["type"] == "revoked"
        assert (await worker.ask("lease", token="github/ci"))["code"] == "denied"


async def test_flushing_keys_reaches_the_other(pair: Any, welcomed: Any) -> None:
    """No replica keeps a data key that an operator told to forget."""
    one, two = pair
    async with welcomed(two) as worker:
        await worker.lease("github/ci")
        assert two.broker.vault.cached_keys() > 0
        await one.services.keys.flush(actor=ROOT)
        await two.until(lambda: two.broker.vault.cached_keys() == 0)


async def test_a_lease_goes_on_where_its_worker_comes_back(pair: Any, welcomed: Any) -> None:
    """The same lease, with the value that was put while nobody held it."""
    one, two = pair
    async with welcomed(one) as worker:
        lease = (await worker.lease("github/ci"))["lease"]
    await one.put("github/ci", b"two")
    async with welcomed(two) as worker:
        answer = await worker.ask("resume", leases=[{"lease": lease, "version": 1}])
        assert [item["lease"] for item in answer["live"]] == [lease]
        assert [item["value"] for item in answer["rotated"]] == ["two"]
        row = await one.row(lease)
        assert (row.instance, row.session, row.state) == ("two", worker.welcome["session"], "live")


async def test_a_worker_that_is_on_both_is_one_worker(pair: Any, welcomed: Any) -> None:
    """Revoking by worker ends its leases on both replicas."""
    one, two = pair
    async with welcomed(one) as first, welcomed(two) as second:
        for worker in (first, second):
            await worker.lease("github/ci")
        await one.broker.leases.revoke(lease=None, token=None, worker="ci-1", reason="left", actor=ROOT, wait_s=0)
        for worker in (first, second):
            assert (await worker.push())["type"] == "revoked"


async def test_the_logs_of_both_verify_while_they_serve(pair: Any, welcomed: Any) -> None:
    """Each has a log of its own, and all of them together say who had what."""
    for house in pair:
        async with welcomed(house) as worker:
            await worker.lease("github/ci")
    for house in pair:
        report = await house.verified()
        assert report.problems == []


async def test_two_that_replace_a_data_key_at_once_make_one(pair: Any) -> None:
    """Rotation needs no claim: the key's row says who was first, and the other one learns of it."""
    one, two = pair
    before = {key.id for key in one.broker.authority.data_keys}
    active = next(iter(one.broker.authority.data_keys)).id
    outcomes = await asyncio.gather(
        *(house.services.keys.rotate("default", actor="system", from_data_key=active) for house in pair),
        return_exceptions=True,
    )
    await asyncio.gather(one.settled(), two.settled())
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) >= 1
    for house in pair:
        keys = {key.id for key in house.broker.authority.data_keys}
        assert len(keys - before) == 1
        assert (await house.storage.get(KeyringRecord, ("default",))).active_data_key in keys - before


@pytest.mark.parametrize("where", ["one", "two"])
async def test_what_runs_out_is_ended_once(pair: Any, welcomed: Any, where: str) -> None:
    """A held lease by its own replica, an abandoned one by the replica that has the upkeep; neither by both."""
    one, two = pair
    house = one if where == "one" else two
    await one.grant("worker:ci-1", "short/*", 1, 1)
    for name in ("short/held", "short/left"):
        await one.put(name)
    await two.settled()
    async with welcomed(house) as stays:
        held = (await stays.lease("short/held"))["lease"]
        async with welcomed(house) as goes:
            left = (await goes.lease("short/left"))["lease"]

        async def ended() -> bool:
            return {(await one.row(lease)).state for lease in (held, left)} == {"expired"}

        await one.until(ended, within_s=15)
        assert [(await one.row(lease)).rev for lease in (held, left)] == [2, 2]
        assert house.broker.desk.counts.failed == {}
        assert len(house.broker.context.holdings) == 0


async def test_a_change_costs_the_other_one_batch_however_many_hold_it(pair: Any, welcomed: Any) -> None:
    """Forty workers of the other replica have the new value after a few commits, not after forty."""
    one, two = pair
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(welcomed(two)) for _ in range(40)]
        await asyncio.gather(*(worker.lease("github/ci") for worker in workers))
        await two.broker.desk.drained()
        before = two.broker.desk.counts.batches
        await one.put("github/ci", b"two")
        pushes = await asyncio.gather(*(worker.push() for worker in workers))
        assert {push["value"] for push in pushes} == {"two"}
        assert two.broker.desk.counts.batches - before <= 4


async def test_status_names_every_replica(pair: Any, shared: Path) -> None:
    """Whichever is asked, all that serve the database are listed."""
    credential = tomllib.loads((shared.parent / "profile.toml").read_text())["credential"]
    headers = {"Authorization": f"Bearer {credential}"}
    for house in pair:
        await house.until(lambda house=house: house.broker.roll.alive == 2, within_s=10)
        async with aiohttp.ClientSession() as http, http.get(f"{house.url}/v1/status", headers=headers) as answer:
            listed = (await answer.json())["replicas"]
        assert [(row["instance"], row["ended_at"]) for row in listed] == [("one", None), ("two", None)]


async def test_doctor_knows_who_serves(pair: Any, shared: Path) -> None:
    """It names the replicas, compares clocks, and writes nothing beside one that serves under the same name."""
    layout = Layout(folder=shared.parent, config=named(shared, "two"))
    findings = {finding.check: finding for finding in await examine(layout, SystemClock())}
    assert {name for name in ("one (", "two (") if name in findings["replicas"].said} == {"one (", "two ("}
    assert findings["clock skew"].state == "ok"
    assert "nothing was written" in findings["storage"].said
    assert findings["audit log"].state == "ok"


async def test_init_beside_a_serving_replica_changes_nothing(pair: Any, shared: Path) -> None:
    """Provisioning may run it again and again, also under the name of a replica that serves."""
    layout = Layout(folder=shared.parent, config=named(shared, "one"))
    done = await initialise(layout, own_config=True, passphrase_file=None, new_credential=False, clock=SystemClock())
    assert done.steps[-1].what == "broker"
    assert pair[0].broker.roll.lapses == 0
