"""Lists are whole through their pages, whatever the page size and whatever changes meanwhile."""

from __future__ import annotations

import pytest


async def walk(site, path: str, limit: int) -> list[dict]:
    items, cursor = [], ""
    while True:
        joint = "&" if "?" in path else "?"
        answer = await site.ask("GET", f"{path}{joint}limit={limit}{cursor}")
        assert answer.status == 200, answer.raw
        assert len(answer.body["items"]) <= limit
        items += answer.body["items"]
        if answer.body["next"] is None:
            return items
        cursor = f"&cursor={answer.body['next']}"


async def fill(site) -> None:
    for number in range(7):
        await site.put(f"team/t{number}")
        await site.ask("POST", "/v1/grants", {"subject": f"worker:w{number}", "pattern": "a"})
        await site.ask("POST", "/v1/enrolments", {"worker": f"w{number}"})
        await site.put("many", str(number))
    await site.put("other/x")


@pytest.mark.parametrize("limit", [1, 3, 7, 1000])
async def test_lists_are_whole(site, limit) -> None:
    """Every list gives each item once, in order of its key, for any page size."""
    await fill(site)
    tokens = [item["token"] for item in await walk(site, "/v1/tokens", limit)]
    assert tokens == sorted([*(f"team/t{n}" for n in range(7)), "many", "other/x"])
    assert [item["token"] for item in await walk(site, "/v1/tokens?prefix=team/", limit)] == tokens[2:]
    versions = [item["version"] for item in await walk(site, "/v1/tokens/many/-/versions", limit)]
    assert versions == [7, 6, 5, 4, 3, 2, 1]
    grants = [item["grant"] for item in await walk(site, "/v1/grants", limit)]
    assert (len(grants), grants) == (7, sorted(grants))
    assert len(await walk(site, "/v1/enrolments", limit)) == 7
    assert [item["admin"] for item in await walk(site, "/v1/admins", limit)] == [
        "admin",
        "auditor",
        "operator",
        "reader",
    ]


async def test_the_audit_tail_is_whole_and_newest_first(site) -> None:
    """Page by page, every entry once, numbers falling."""
    await fill(site)
    entries = await walk(site, "/v1/audit/entries", 5)
    numbers = [entry["seq"] for entry in entries]
    assert numbers == list(range(numbers[0], -1, -1))
    assert entries[-1]["entry"]["event"] == "log.opened"


async def test_what_exists_throughout_a_walk_is_seen_once(site) -> None:
    """Tokens made and deleted between pages neither hide nor repeat the others."""
    for number in range(6):
        await site.put(f"t{number}")
    first = await site.ask("GET", "/v1/tokens?limit=3")
    await site.put("t0a")
    await site.put("t9")
    await site.ask("DELETE", "/v1/tokens/t1")
    second = await site.ask("GET", f"/v1/tokens?limit=100&cursor={first.body['next']}")
    names = [item["token"] for item in first.body["items"] + second.body["items"]]
    assert names == ["t0", "t1", "t2", "t3", "t4", "t5", "t9"]


async def test_a_cursor_belongs_to_its_list_and_filters(site) -> None:
    """A cursor of another list, or of other filters, is refused and not misread."""
    await fill(site)
    cursor = (await site.ask("GET", "/v1/tokens?limit=1")).body["next"]
    for path in (f"/v1/grants?cursor={cursor}", f"/v1/tokens?prefix=t&cursor={cursor}"):
        answer = await site.ask("GET", path)
        assert (answer.status, answer.code) == (400, "bad_request")
        assert "another list" in answer.body["detail"]


@pytest.mark.parametrize("cursor", ["x", "AAAA", "e30", "WyJhIixbXV0", "%F0%9F%92%A9", "A" * 3000])
async def test_what_is_no_cursor_is_refused(site, cursor) -> None:
    """Garbage is a bad request, never a server error."""
    assert (await site.ask("GET", f"/v1/tokens?cursor={cursor}")).code == "bad_request"


async def test_filters_narrow_lists(site) -> None:
    """Grants by subject, workers by group, keys by keyring."""
    await fill(site)
    assert [item["subject"] for item in await walk(site, "/v1/grants?subject=worker:w3", 2)] == ["worker:w3"]
    assert await walk(site, "/v1/workers?group=none", 2) == []
    assert len(await walk(site, "/v1/keys?keyring=default", 2)) == 1
    assert await walk(site, "/v1/keys?keyring=other", 2) == []
