"""Coming back with leases of an earlier session: what is stated is looked up, never believed."""

from __future__ import annotations

from typing import Any

from broker.audit.entries import LeaseRotated, LeasesResumed
from broker.clock import FakeClock


def held(granted: Any, version: int | None = None) -> dict[str, Any]:
    return {"lease": granted["lease"], "version": version or granted["version"]}


async def test_leases_of_a_lost_connection_are_resumed(house: Any, welcomed: Any) -> None:
    """They are renewed, belong to the new session, and are released by it."""
    async with welcomed(house) as worker:
        granted = await worker.lease("github/ci")
    async with welcomed(house) as worker:
        resumed = await worker.ask("resume", leases=[held(granted)])
        assert (resumed["rotated"], resumed["gone"]) == ([], [])
        assert [(item["lease"], round(item["ttl_s"])) for item in resumed["live"]] == [(granted["lease"], 60)]
        assert (await house.row(granted["lease"])).session == worker.welcome["session"]
        (entry,) = await house.entries(LeasesResumed)
        assert entry.leases == (granted["lease"],)
        assert (await worker.lease("github/ci"))["lease"] == granted["lease"]
        assert (await worker.ask("release", leases=[granted["lease"]]))["leases"] == [granted["lease"]]


async def test_a_half_open_connection_loses_what_is_resumed(house: Any, welcomed: Any) -> None:
    """The new session has the lease while the old one is still open; the old one's close takes nothing away."""
    async with welcomed(house) as new:
        async with welcomed(house) as old:
            granted = await old.lease("github/ci")
            assert len((await new.ask("resume", leases=[held(granted)]))["live"]) == 1
            assert (await old.ask("renew", leases=[granted["lease"]]))["gone"] == [
                {"lease": granted["lease"], "code": "gone"}
            ]
        await house.until(lambda: len(house.broker.sessions) == 1)
        assert (await new.ask("renew", leases=[granted["lease"]]))["gone"] == []
        await house.put("github/ci", b"two")
        assert (await new.push())["value"] == "two"


async def test_another_worker_s_lease_cannot_be_resumed(house: Any, welcomed: Any, prepare: Any) -> None:
    """It is `gone` like one that never was, nothing is told of it, and its owner keeps it."""
    await prepare(house, worker="thief")
    async with welcomed(house) as owner, welcomed(house, "thief") as thief:
        granted = await owner.lease("github/ci")
        resumed = await thief.ask("resume", leases=[held(granted, 7), {"lease": "never", "version": 7}])
        assert (resumed["live"], resumed["rotated"]) == ([], [])
        assert {item["code"] for item in resumed["gone"]} == {"gone"}
        assert (await owner.ask("renew", leases=[granted["lease"]]))["gone"] == []


async def test_resuming_says_why_a_lease_is_gone(
    open_house: Any, clock: FakeClock, prepare: Any, welcomed: Any
) -> None:
    """Expired (swept or not), released and revoked are told apart; each is one item of the answer."""
    async with open_house(clock=clock) as house:
        await prepare(house)
        leases = {}
        for name in ("expired", "released", "revoked", "live"):
            await house.put(f"github/{name}")
        async with welcomed(house) as worker:
            for name in ("released", "revoked", "live"):
                leases[name] = await worker.lease(f"github/{name}")
            leases["expired"] = await worker.lease("github/expired", ttl_s=10)
            await worker.ask("release", leases=[leases["released"]["lease"]])
            await house.services.leases.revoke(
                lease=leases["revoked"]["lease"], token=None, worker=None, reason="x", actor="admin:root", wait_s=0
            )
        await house.until(lambda: len(house.broker.sessions) == 0)
        await house.elapse(11)
        async with welcomed(house) as worker:
            resumed = await worker.ask("resume", leases=[held(granted) for granted in leases.values()])
            gone = {item["lease"]: item["code"] for item in resumed["gone"]}
            assert gone == {leases[name]["lease"]: name for name in ("expired", "released", "revoked")}
            assert [item["lease"] for item in resumed["live"]] == [leases["live"]["lease"]]


async def test_an_older_version_in_hand_gets_the_current_value(house: Any, welcomed: Any) -> None:
    """The answer holds the rotated frame, and its sending is on record."""
    async with welcomed(house) as worker:
        granted = await worker.lease("github/ci")
    await house.until(lambda: len(house.broker.sessions) == 0)
    await house.put("github/ci", b"two")
    async with welcomed(house) as worker:
        resumed = await worker.ask("resume", leases=[held(granted)])
        assert [item["lease"] for item in resumed["live"]] == [granted["lease"]]
        assert resumed["rotated"] == [
            {
                "type": "rotated",
                "lease": granted["lease"],
                "token": "github/ci",
                "version": 2,
                "value": "two",
                "encoding": "utf8",
                "content_type": "text/plain",
                "previous_valid_s": resumed["rotated"][0]["previous_valid_s"],
            }
        ]
    assert (await house.row(granted["lease"])).version == 2
    assert [entry.version for entry in await house.entries(LeaseRotated)] == [2]


async def test_a_lost_grant_is_noticed_when_resuming(house: Any, welcomed: Any) -> None:
    """A lease whose grant went away meanwhile is revoked, not resumed; the others are."""
    await house.put("gitlab/ci")
    other = await house.grant("worker:ci-1", "gitlab/*")
    async with welcomed(house) as worker:
        kept, lost = await worker.lease("github/ci"), await worker.lease("gitlab/ci")
    await house.until(lambda: len(house.broker.sessions) == 0)
    await house.services.grants.remove(other.id, actor="admin:root")
    await house.settled()
    async with welcomed(house) as worker:
        resumed = await worker.ask("resume", leases=[held(kept), held(lost)])
        assert [item["lease"] for item in resumed["live"]] == [kept["lease"]]
        assert resumed["gone"] == [{"lease": lost["lease"], "code": "revoked"}]
    assert (await house.row(lost["lease"])).state == "revoked"


async def test_values_too_many_for_one_frame_follow_as_pushes(house: Any, welcomed: Any) -> None:
    """No frame passes 128 KiB, and every rotated value arrives, on the answer or behind it."""
    tokens = [f"github/big{number}" for number in range(4)]
    for token in tokens:
        await house.put(token, b"1" * 60_000)
    async with welcomed(house) as worker:
        leases = [await worker.lease(token) for token in tokens]
    await house.until(lambda: len(house.broker.sessions) == 0)
    for token in tokens:
        await house.put(token, b"2" * 60_000)
    async with welcomed(house) as worker:
        resumed = await worker.ask("resume", leases=[held(granted) for granted in leases])
        assert len(resumed["live"]) == 4
        rotated = [*resumed["rotated"]]
        while len(rotated) < 4:
            rotated.append(await worker.push())
        assert {frame["token"] for frame in rotated} == set(tokens)
        assert {frame["value"] for frame in rotated} == {"2" * 60_000}


async def test_two_leases_of_one_token_become_one(house: Any, welcomed: Any) -> None:
    """A session holds a token once: of two leases that it states, one lives, and the other is told to be over."""
    async with welcomed(house) as one, welcomed(house) as two:
        leases = [await one.lease("github/ci"), await two.lease("github/ci")]
    await house.until(lambda: len(house.broker.sessions) == 0)
    async with welcomed(house) as worker:
        resumed = await worker.ask("resume", leases=[held(granted) for granted in leases])
        assert len(resumed["live"]) == 1
        assert [item["code"] for item in resumed["gone"]] == ["released"]
        live = resumed["live"][0]["lease"]
        assert {row.lease for row in await house.leases() if row.state == "live"} == {live}
        assert set(house.broker.context.holdings.by_lease) == {live}


async def test_resuming_keeps_to_the_bound_of_a_session(open_house: Any, prepare: Any, welcomed: Any) -> None:
    """Leases gathered in several sessions cannot be piled up in one: it gets none of them, and is told of the bound."""
    async with open_house(leases__per_session="2") as house:
        await prepare(house)
        leases = []
        for name in "abc":
            await house.put(f"github/{name}")
            async with welcomed(house) as worker:
                leases.append(await worker.lease(f"github/{name}"))
        async with welcomed(house) as worker:
            refused = await worker.ask("resume", leases=[held(granted) for granted in leases])
            assert refused["code"] == "rate_limited"
            assert len((await worker.ask("resume", leases=[held(granted) for granted in leases[:2]]))["live"]) == 2


async def test_leases_survive_a_restart(open_house: Any, prepare: Any, welcomed: Any) -> None:
    """A broker that comes back knows every lease, and the worker resumes them without a new value."""
    async with open_house() as house:
        who = await prepare(house)
        async with welcomed(house) as worker:
            granted = await worker.lease("github/ci")
    async with open_house() as house:
        house.workers["ci-1"] = who
        async with welcomed(house) as worker:
            resumed = await worker.ask("resume", leases=[held(granted)])
            assert [item["lease"] for item in resumed["live"]] == [granted["lease"]]
        assert (await house.verified()).problems == []


async def test_sessions_of_a_life_that_crashed_are_closed_on_record(
    open_house: Any, prepare: Any, welcomed: Any
) -> None:
    """A row that nobody closed is closed by the next start, with 1006."""
    async with open_house() as house:
        who = await prepare(house)
        house.storage.refuse = lambda commit: any(getattr(row, "ended_at", None) for row in commit.updates)
        async with welcomed(house):
            pass
        await house.until(lambda: len(house.broker.sessions) == 0)
    async with open_house() as house:
        house.workers["ci-1"] = who

        async def closed() -> bool:
            return all(row.ended_at for row in await house.sessions())

        await house.until(closed)
        assert [row.close_code for row in await house.sessions()] == [1006]
