"""Reviewing access: what each worker may lease, whether it does, and what nobody has used for long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.admin.asked import AccessTerms, NewGrant, NewVersion
from broker.admin.workers import NewWorker
from broker.errors import BadRequest
from broker.ids import time_ordered_id
from storage.conformance.samples import sample
from storage.port import Commit
from storage.records import LeaseRecord

ROOT = "admin:root"
DAY = timedelta(days=1)


async def worker(house: Any, name: str, **more: Any) -> Any:
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    return await house.services.workers.register(NewWorker(name=name, public_key=key, **more), actor=ROOT)


async def grant(house: Any, subject: str, pattern: str = "github/*", **more: Any) -> Any:
    return await house.services.grants.add(NewGrant(subject=subject, pattern=pattern, **more), actor=ROOT)


async def use(house: Any, name: str, grant_: Any = None, token: str = "github/ci") -> None:
    """As a lease by this grant would note it; without one, as a connection would."""
    uses, mono = house.services.uses, house.clock.monotonic()
    uses.note(f"worker:{name}", "" if grant_ is None else grant_.id, "" if grant_ is None else token, mono)
    await uses.flush()


def terms(**more: Any) -> AccessTerms:
    return AccessTerms(**{"unused": 30 * DAY, "expiring": 14 * DAY, **more})


async def review(house: Any, limit: int = 1000, **more: Any) -> list[Any]:
    found: list[Any] = []
    after = None
    while True:
        lines, after = await house.services.access.lines(terms(**more), after=after, limit=limit)
        assert len(lines) <= limit
        found += lines
        if after is None:
            return found


async def test_each_worker_is_shown_with_each_grant_that_applies(house: Any) -> None:
    """Its own and those of its groups, with when it last used each; whoever has none is shown too."""
    await worker(house, "ci-1", groups=("ci",))
    await worker(house, "idle")
    own, shared = await grant(house, "worker:ci-1"), await grant(house, "group:ci", "db/*")
    await use(house, "ci-1", own)
    lines = {(line.worker.name, line.grant and line.grant.id): line for line in await review(house)}
    assert set(lines) == {("ci-1", own.id), ("ci-1", shared.id), ("idle", None)}
    used = lines["ci-1", own.id].used
    assert (used.last_at, used.last_token) == (house.clock.now(), "github/ci")
    assert lines["ci-1", shared.id].used is None
    assert "no_grant" in lines["idle", None].findings


async def test_what_was_not_used_for_long_is_found(house: Any) -> None:
    """After thirty days without a lease, and not a moment before; never used is told apart."""
    await worker(house, "ci-1")
    old = await grant(house, "worker:ci-1")
    never = await grant(house, "worker:ci-1", "db/*")
    await use(house, "ci-1", old)
    house.jump(30 * DAY - timedelta(seconds=1))
    found = {line.grant.id: set(line.findings) for line in await review(house)}
    assert not {"unused"} & (found[old.id] | found[never.id])
    assert "never_used" in found[never.id]
    house.jump(timedelta(seconds=2))
    found = {line.grant.id: set(line.findings) for line in await review(house)}
    assert "unused" in found[old.id] & found[never.id]
    await use(house, "ci-1", old)
    found = {line.grant.id: set(line.findings) for line in await review(house)}
    assert "unused" not in found[old.id]


async def test_what_ends_soon_and_what_is_over_is_found(house: Any) -> None:
    """Of grants and of workers."""
    now = house.clock.now()
    await worker(house, "ci-1", expires_at=now + 20 * DAY)
    ends = await grant(house, "worker:ci-1", expires_at=now + 10 * DAY)
    assert [line.findings for line in await review(house)] == [
        ("never_connected", "never_used", "expiring", "no_token")
    ]
    house.jump(11 * DAY)
    (line,) = await review(house)
    assert line.grant.id == ends.id
    assert {"expired", "worker_expiring"} <= set(line.findings)
    house.jump(11 * DAY)
    assert "worker_expired" in (await review(house))[0].findings


async def test_grants_for_tokens_that_are_not_there_are_found(house: Any) -> None:
    """A pattern that matches no token is named, until there is one; what is remembered is looked up again."""
    await worker(house, "ci-1")
    await house.services.putter.put(NewVersion(token="github/ci", value=b"x"), actor=ROOT)
    await grant(house, "worker:ci-1", "github/*")
    lone = await grant(house, "worker:ci-1", "db/**")
    assert [line.grant.id for line in await review(house) if "no_token" in line.findings] == [lone.id]
    await house.services.putter.put(NewVersion(token="db/app/main", value=b"x"), actor=ROOT)
    await house.clock.advance(61)
    assert [line for line in await review(house) if "no_token" in line.findings] == []


async def test_workers_who_do_not_come_are_found(house: Any) -> None:
    """Never connected, not for long, disabled, and belonging to others, each by its name."""
    await worker(house, "never")
    await worker(house, "once", labels={"vendor": "acme"})
    await use(house, "once")
    await house.services.workers.disable("once", actor=ROOT)
    house.jump(31 * DAY)
    found = {line.worker.name: set(line.findings) for line in await review(house, third_party="vendor")}
    assert found["never"] == {"never_connected", "not_connected", "no_grant"}
    assert found["once"] == {"worker_disabled", "not_connected", "third_party", "no_grant"}


async def test_a_review_can_be_of_some(house: Any) -> None:
    """One worker, the members of a group, or those with a label."""
    await worker(house, "a", groups=("ci",))
    await worker(house, "b", labels={"team": "x"})
    for more, names in (
        ({"worker": "a"}, ["a"]),
        ({"group": "ci"}, ["a"]),
        ({"label": ("team", "x")}, ["b"]),
        ({"label": ("team", "y")}, []),
    ):
        assert [line.worker.name for line in await review(house, **more)] == names


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_of_any_size_show_each_line_once(house: Any, limit: int) -> None:
    """In the same order."""
    for name in ("a", "b", "c"):
        await worker(house, name, groups=("ci",) if name != "b" else ())
    for pattern in ("x/*", "y/*", "z/*"):
        await grant(house, "group:ci", pattern)
    whole = [(line.worker.name, line.grant and line.grant.id) for line in await review(house)]
    assert len(whole) == 7
    assert [(line.worker.name, line.grant and line.grant.id) for line in await review(house, limit)] == whole


async def unused(house: Any, span: timedelta, limit: int = 100) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        page, after, _ = await house.services.access.unused(span, after=after, limit=limit)
        found += [each.grant.id for each in page]
        if after is None:
            return found


async def test_unused_grants_are_those_that_nobody_used(house: Any) -> None:
    """One use by one member of a group keeps its grant; a young one is kept too."""
    await house.services.uses.flush()
    for name in ("a", "b"):
        await worker(house, name, groups=("ci",))
    kept, idle = await grant(house, "group:ci"), await grant(house, "group:ci", "db/*")
    house.jump(60 * DAY)
    await use(house, "b", kept)
    house.jump(31 * DAY)
    await grant(house, "group:ci", "new/*")
    assert await unused(house, 90 * DAY) == [idle.id]
    assert sorted(await unused(house, 30 * DAY, limit=1)) == sorted([kept.id, idle.id])


async def test_a_grant_that_a_live_lease_rests_on_is_used(house: Any) -> None:
    """A lease of weeks is renewed seldom, and what another replica gave a moment ago is not written down: neither's
    grant is unused, and each is once its lease is over.
    """
    await house.services.uses.flush()
    await worker(house, "ci-1")
    long = await grant(house, "worker:ci-1", ttl_s=20 * 86_400, max_ttl_s=20 * 86_400)
    fresh = await grant(house, "worker:ci-1", "db/*")
    await use(house, "ci-1", long)
    await _lease(house, long, 20 * DAY)
    house.jump(10 * DAY)
    await _lease(house, fresh, DAY)
    assert await unused(house, 2 * DAY) == []
    assert "unused" not in {name for line in await review(house, unused=2 * DAY) if line.used for name in line.findings}
    house.jump(10 * DAY)
    assert sorted(await unused(house, 2 * DAY)) == sorted([long.id, fresh.id])
    assert "unused" in {name for line in await review(house, unused=2 * DAY) if line.used for name in line.findings}


async def _lease(house: Any, granted: Any, lasts: timedelta) -> None:
    now = house.clock.now()
    row = sample(
        LeaseRecord,
        1,
        lease=time_ordered_id(now),
        grant=granted.id,
        state="live",
        granted_at=now,
        expires_at=now + lasts,
        max_expires_at=now + lasts,
        due_at=now + lasts,
        ended_at=None,
    )
    await house.broker.storage.commit(Commit(inserts=[row]))


@pytest.mark.parametrize("span", [timedelta(hours=23), 8 * DAY])
async def test_what_cannot_be_known_is_not_claimed(house: Any, span: timedelta) -> None:
    """Uses that are on record for a week say nothing of eight days, and nothing of less than one."""
    await house.services.uses.flush()
    await grant(house, "group:ci")
    house.jump(7 * DAY)
    with pytest.raises(BadRequest, match="unused: "):
        await unused(house, span)


async def test_admins_are_shown_with_their_last_use(house: Any) -> None:
    """Who never asked for anything has none."""
    for name in ("root", "spare"):
        await house.services.admins.create(name, roles=("admin",), expires_at=None, actor="system")
    house.services.uses.note("admin:root", "", "", house.clock.monotonic())
    await house.services.uses.flush()
    page = await house.services.access.admins(after=None, limit=1)
    assert [record.name for record in page.records] == ["root"]
    rest = await house.services.access.admins(after=page.next, limit=1)
    assert ([record.name for record in rest.records], rest.next) == (["spare"], None)
    assert await house.services.access.last_uses([*page.records, *rest.records]) == {"root": house.clock.now()}
