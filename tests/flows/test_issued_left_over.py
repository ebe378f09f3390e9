"""Values made for leases that come to nothing, or end where nobody knows of them: each is ended, and on record.

Nor does a hand at the database have one leased to somebody else.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from broker.admin.asked import NewIssuer
from broker.audit.entries import IssuedEnded
from broker.leases.issued import making as issuing_module
from broker.leases.terms import WORTH_RENEWING_S
from storage.port import Commit
from storage.records import IssuedRecord

ROOT = "admin:root"
NAME = "db/reports"
API = "crm/api"


@pytest.fixture
async def upstream(postgres: Any, issued_from: Any) -> Any:
    """A database on the server of this run."""
    there = issued_from.Upstream(postgres, await asyncio.to_thread(postgres.create))
    await asyncio.to_thread(there.found)
    return there


async def rows(house: Any) -> list[IssuedRecord]:
    found: list[IssuedRecord] = (await house.storage.select(IssuedRecord)).records
    return found


def issuer_at(server: Any, token_url: str) -> NewIssuer:
    """How access tokens of an authorization server are made; the token crm/client holds the client's secret."""
    settings = {"token_url": token_url, "revoke_url": f"{server.url}/revoke", "client_id": server.client_id}
    return NewIssuer(token=API, issuer="oauth2", settings=settings, credentials={"client_secret": "crm/client"})


async def test_many_asks_of_a_session_are_all_told_the_bound(house: Any, upstream: Any, welcomed: Any) -> None:
    """However many a session sends at once, each answer names what is in the way, and upstream is asked for nothing."""
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await upstream.attach(house, bounds=(1, 1))
    async with welcomed(house) as first, welcomed(house) as second:
        await first.lease(NAME)
        for number in range(50, 100):
            await second.send(type="lease", id=number, token=NAME)
        answers = [await second.answer(number) for number in range(50, 100)]
    assert {answer["code"] for answer in answers} == {"rate_limited"}
    assert all("1 values may exist" in answer["message"] for answer in answers)
    assert len(await upstream.logins()) == 1


async def test_who_hangs_up_while_a_token_is_made_leaves_none(
    house: Any, oauth2_standin: Any, tcp_proxies: Any, welcomed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An access token that nobody is there for any more is revoked at once, while the broker still knows it."""
    monkeypatch.setattr(issuing_module, "GRACE_S", 3600.0)
    async with oauth2_standin.authorising() as server:
        target = server.url.rsplit(":", 1)[1]
        async with tcp_proxies.proxying("127.0.0.1", int(target)) as network:
            await house.grant("worker:ci-1", API, 60, 600)
            await house.put("crm/client", server.client_secret.encode())
            new = issuer_at(server, f"http://127.0.0.1:{network.port}/token")
            await house.services.issuers.set(new, actor=ROOT)
            await house.settled()
            network.thawed.clear()
            async with welcomed(house) as worker:
                await worker.send(type="lease", id=1, token=API)

                async def begun() -> bool:
                    return len(await rows(house)) == 1

                await house.until(begun)

            async def hung_up() -> bool:
                return all(session.ended_at is not None for session in await house.sessions())

            await house.until(hung_up)
            network.mend()

            async def over() -> bool:
                return not await rows(house)

            await house.until(over)
            assert any("token" in form for form in server.shown), "it was made, and shown to be ended"
            assert not server.access
    [ended] = await house.entries(IssuedEnded)
    assert (ended.token, ended.attempts) == (API, 1)


async def test_a_lease_ends_its_value_where_its_issuer_is_not_known_yet(
    house: Any, upstream: Any, welcomed: Any
) -> None:
    """A replica that has heard neither of a new token nor of its issuer writes down that its value is to be ended."""
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await upstream.attach(house)
    async with welcomed(house) as worker:
        granted = await worker.lease(NAME)
        known = house.broker.authority.issuers._ledger.rows
        issuer = known.pop((NAME,))
        house.broker.context.heads.forget([NAME])
        await house.broker.leases.revoke(
            lease=granted["lease"], token=None, worker=None, reason="leaked", actor=ROOT, wait_s=0
        )
        [row] = await rows(house)
        assert (row.lease, row.state) == (granted["lease"], "ending")
        known[NAME,] = issuer

        async def over() -> bool:
            return not await rows(house) and not await upstream.logins()

        await house.until(over)


async def test_rows_of_another_hand_take_no_turns(house: Any, upstream: Any, welcomed: Any) -> None:
    """However many forged rows are due before all others, what is to be ended is ended; `issued list` names them."""
    await house.grant("worker:ci-1", "db/*", 60, 600)
    await upstream.attach(house)
    async with welcomed(house) as worker:
        granted = await worker.lease(NAME)
        [row] = await rows(house)
        forged = [
            msgspec.structs.replace(row, rev=1, lease=f"{number:032x}", state="ending", due_at=row.made_at)
            for number in range(200)
        ]
        await house.storage.commit(Commit(inserts=forged))
        await worker.ask("release", leases=[granted["lease"]])

        async def over() -> bool:
            return {left.lease for left in await rows(house)} == {each.lease for each in forged}

        await house.until(over)
    assert not await upstream.logins()
    shown = await house.services.issuers.issued(token=NAME, after=None, limit=500)
    assert len(shown.records) == len(forged)
    assert all("issued" in each.error and each.lease in each.error for each in shown.records), shown.records[0].error


async def test_a_lease_that_another_hand_moved_gives_nobody_elses_value(
    house: Any, upstream: Any, welcomed: Any, prepare: Any
) -> None:
    """A row that now says that the lease is of another worker and token opens neither to that worker."""
    await house.grant("worker:ci-1", NAME, 60, 600)
    await upstream.attach(house)
    await prepare(house, worker="ci-2")
    await house.grant("worker:ci-2", "db/payroll", 60, 600)
    await upstream.attach(house, token="db/payroll")
    async with welcomed(house, worker="ci-2") as victim:
        granted = await victim.lease("db/payroll")
    row = await house.row(granted["lease"])
    moved = msgspec.structs.replace(row, rev=row.rev + 1, worker="ci-1", token=NAME)
    await house.storage.commit(Commit(updates=[moved]))
    async with welcomed(house) as worker:
        resumed = await worker.ask("resume", leases=[{"lease": granted["lease"], "version": 1}])
        assert [each["lease"] for each in resumed["live"]] == [granted["lease"]]
        answer = await worker.ask("lease", token=NAME)
        assert (answer["type"], answer["code"]) == ("error", "unavailable")


async def test_no_lease_outlives_its_value(house: Any, oauth2_standin: Any, welcomed: Any) -> None:
    """It is renewed up to the end that upstream gave the value, and runs out there."""
    async with oauth2_standin.authorising() as server:
        server.expires_in = 5
        await house.grant("worker:ci-1", API, 2, 600)
        await house.put("crm/client", server.client_secret.encode())
        await house.services.issuers.set(issuer_at(server, f"{server.url}/token"), actor=ROOT)
        await house.settled()
        async with welcomed(house) as worker:
            granted = await worker.lease(API)
            assert granted["max_ttl_s"] <= 5
            [row] = await rows(house)

            async def over() -> bool:
                return (await house.row(granted["lease"])).state == "expired" and not await rows(house)

            await house.until(over)
        lease = await house.row(granted["lease"])
        assert lease.max_expires_at == row.ends_at == row.due_at
        short_s = (lease.max_expires_at - lease.expires_at).total_seconds()
        assert 0 <= short_s <= WORTH_RENEWING_S, "it was renewed to the end, and not past it"
