"""Proving who asks, and how often one may."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from broker.api.limits import ApiLimits, Buckets, Rate
from broker.audit.encoding import decode
from broker.audit.entries import AdminRefused
from broker.clock import FakeClock
from broker.errors import RateLimited
from broker.sources import source_key

FEW = ApiLimits(
    credential=Rate(per_s=1.0, burst=5), address=Rate(per_s=10.0, burst=50), failures=Rate(per_s=0.5, burst=3)
)


async def refusals(site) -> list[AdminRefused]:
    page = await site.services.audit.tail(after=None, limit=1000)
    entries = [decode(entry.text) for entry in reversed(page.entries)]
    return [entry for entry in entries if isinstance(entry, AdminRefused)]


async def test_every_wrong_credential_is_answered_alike(site) -> None:
    """None, malformed, unknown, disabled, expired: one answer byte for byte, and a reason each in the audit log."""
    await site.admin("gone", "admin")
    await site.services.admins.disable("gone", actor="system")
    brief = await site.services.admins.create(
        "brief", roles=["admin"], expires_at=site.clock.now() + timedelta(seconds=1), actor="system"
    )
    await site.clock.advance(1)
    values = [
        None,
        "Basic cm9vdDpyb290",
        "Bearer hunter2",
        "Bearer tba_" + "A" * 43,
        f"Bearer {site.credentials['gone']}",
        f"Bearer {brief.credential.reveal().decode()}",
    ]
    answers = []
    for value in values:
        headers = {} if value is None else {"Authorization": value}
        answers.append(await site.ask("GET", "/v1/tokens", role=None, **headers))
    assert {answer.status for answer in answers} == {401}
    assert len({answer.raw for answer in answers}) == 1
    assert answers[0].headers["WWW-Authenticate"].startswith("Bearer")
    assert {entry.reason for entry in await refusals(site)} == {
        "no credential",
        "malformed credential",
        "unknown credential",
        "admin gone is disabled",
        "admin brief has expired",
    }


async def test_a_credential_works_until_it_is_replaced(site) -> None:
    """The answer that replaces a credential holds the one that works from then on; the old one stops at once."""
    answer = await site.ask("POST", "/v1/admins/reader/credential")
    assert answer.status == 201
    assert (await site.ask("GET", "/v1/status", role="reader")).status == 401
    site.credentials["reader"] = answer.body["credential"]
    assert (await site.ask("GET", "/v1/status", role="reader")).status == 200


async def test_refusals_are_counted_and_not_written_one_by_one(site) -> None:
    """A hundred refusals of one kind leave one entry at once, and their number a minute later."""
    for _ in range(100):
        await site.ask("GET", "/v1/tokens", role=None)
    assert [entry.count for entry in await refusals(site)] == [1]
    await site.clock.advance(60)
    await site.ask("GET", "/v1/tokens", role=None)
    assert [entry.count for entry in await refusals(site)] == [1, 100]


async def test_a_credential_that_asks_too_often_waits(open_site) -> None:
    """Over its rate: 429 with Retry-After; another credential is not touched, and time heals."""
    async with open_site(limits=FEW) as site:
        statuses = [(await site.ask("GET", "/v1/status", role="reader")).status for _ in range(6)]
        assert statuses == [200] * 5 + [429]
        limited = await site.ask("GET", "/v1/status", role="reader")
        assert (limited.code, limited.headers["Retry-After"]) == ("rate_limited", "1")
        assert limited.body["retry_after_s"] == 1.0
        assert (await site.ask("GET", "/v1/status", role="auditor")).status == 200
        await site.clock.advance(1)
        assert (await site.ask("GET", "/v1/status", role="reader")).status == 200


async def test_failures_are_limited_by_address_and_harm_no_right_credential(open_site) -> None:
    """After three wrong credentials the address gets 429 for further ones, while a right one still passes."""
    async with open_site(limits=FEW) as site:
        statuses = [(await site.ask("GET", "/v1/status", role=None)).status for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        assert (await site.ask("GET", "/v1/status", role="reader")).status == 200
        await site.clock.advance(2)
        assert (await site.ask("GET", "/v1/status", role=None)).status == 401


async def test_an_address_is_limited_whoever_asks(open_site) -> None:
    """All requests of an address share a bucket, whatever their credentials."""
    async with open_site(limits=FEW) as site:
        answers = await asyncio.gather(*(site.ask("GET", "/v1/status", role=None) for _ in range(60)))
        answers.append(await site.ask("GET", "/v1/status", role="reader"))
        assert answers[-1].status == 429
        assert "address" in answers[-1].body["detail"]


def test_buckets_are_bounded_and_forget_the_longest_untouched() -> None:
    """A table of three keys holds three, whoever comes; a key that was forgotten begins full."""
    clock = FakeClock()
    buckets = Buckets(rate=Rate(per_s=1.0, burst=1), keys_max=3, monotonic=clock.monotonic)
    for key in "abc":
        buckets.take(key, "requests")
    with pytest.raises(RateLimited):
        buckets.take("a", "requests")
    buckets.take("d", "requests")
    assert len(buckets) == 3
    with pytest.raises(RateLimited):
        buckets.take("a", "requests")
    buckets.take("b", "requests")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("nonsense", "unknown", True),
    ],
)
def test_an_ipv6_network_is_one_source(one, other, same) -> None:
    """Addresses of one /64 share a bucket; IPv4 addresses do not, however they are written."""
    assert (source_key(one) == source_key(other)) is same
