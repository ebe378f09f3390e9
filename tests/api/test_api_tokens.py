"""Tokens over HTTP: names in paths, values in bodies, revisions in headers."""

from __future__ import annotations

import base64

import pytest


async def test_a_value_goes_in_as_text_and_comes_out_of_a_reveal_alone(site) -> None:
    """Put answers token, version and stage, without the value; reveal answers it, and no cache may keep it."""
    made = await site.put("github/ci-bot", "s3cret", labels={"team": "ci"})
    assert made.status == 201
    assert (made.body["token"], made.body["version"], made.body["stage"]) == ("github/ci-bot", 1, "current")
    assert made.headers["Location"] == "/v1/tokens/github/ci-bot/-/versions/1"
    assert b"s3cret" not in made.raw
    shown = await site.ask("POST", "/v1/tokens/github/ci-bot/-/reveal", {})
    assert (shown.body["value"], shown.body["encoding"], shown.body["version"]) == ("s3cret", "utf8", 1)
    assert shown.headers["Cache-Control"] == "no-store"


async def test_bytes_go_in_and_out_as_base64url(site) -> None:
    """What is not UTF-8 travels as unpadded base64url in both directions."""
    raw = bytes(range(256))
    text = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    made = await site.ask("POST", "/v1/tokens/a/-/versions", {"value_b64": text})
    assert (made.status, made.body["content_type"]) == (201, "application/octet-stream")
    shown = await site.ask("POST", "/v1/tokens/a/-/reveal", {})
    assert (shown.body["value"], shown.body["encoding"]) == (text, "b64")


@pytest.mark.parametrize("name", ["a", "a/b", "a%2Fb", "a/b/c/d/e/f/g/h", "a.b/c_d-e"])
async def test_names_stand_in_paths_with_plain_or_encoded_slashes(site, name) -> None:
    """Whatever a proxy does to %2F, the path names the same token, with and without a part behind `/-/`."""
    plain = name.replace("%2F", "/")
    assert (await site.put(name)).body["token"] == plain
    assert (await site.ask("GET", f"/v1/tokens/{plain}")).body["token"] == plain
    assert (await site.ask("GET", f"/v1/tokens/{name}/-/versions/1")).body["token"] == plain
    assert (await site.ask("POST", f"/v1/tokens/{name}/-/disable")).body["disabled"] is True


@pytest.mark.parametrize("name", ["A", "a//b", "-", "a/b/c/d/e/f/g/h/i", "a%00", "a%2F-%2Fversions", "%2E%2E", "a%20b"])
async def test_what_is_no_name_is_a_bad_request(site, name) -> None:
    """A path with something that no token can be called is refused as malformed, and says what a name is."""
    answer = await site.ask("GET", f"/v1/tokens/{name}")
    assert (answer.status, answer.code) == (400, "bad_request")
    assert "segment" in answer.body["detail"]


async def test_unknown_paths_below_a_token_are_not_found(site) -> None:
    """Behind `/-/` there are known words only."""
    answer = await site.ask("GET", "/v1/tokens/a/-/secrets")
    assert (answer.status, answer.code) == (404, "no_such_path")


async def test_the_entity_tag_is_the_revision_and_guards_changes(site) -> None:
    """A change that names a stale revision is refused with 412 and changes nothing; the current one passes."""
    await site.put("a")
    first = (await site.ask("GET", "/v1/tokens/a")).headers["ETag"]
    await site.put("a")
    stale = await site.ask("PATCH", "/v1/tokens/a", {"labels": {"x": "1"}}, If_Match=first)
    assert (stale.status, stale.code) == (412, "precondition_failed")
    now = await site.ask("GET", "/v1/tokens/a")
    assert now.body["labels"] == {}
    passed = await site.ask("PATCH", "/v1/tokens/a", {"labels": {"x": "1"}}, If_Match=now.headers["ETag"])
    assert (passed.status, passed.body["labels"]) == (200, {"x": "1"})
    assert passed.headers["ETag"] == f'"{passed.body["revision"]}"'


@pytest.mark.parametrize("tag", ["*", 'W/"1"', '"1", "2"', "1", '"0"', '"x"'])
async def test_only_one_strong_tag_is_taken(site, tag) -> None:
    """Conditions that the broker would have to guess about are refused."""
    await site.put("a")
    assert (await site.ask("POST", "/v1/tokens/a/-/disable", If_Match=tag)).code == "bad_request"


async def test_if_none_match_makes_a_put_create_only(site) -> None:
    """`If-None-Match: *` stores the first value and refuses a second."""
    answers = [await site.ask("POST", "/v1/tokens/a/-/versions", {"value": "x"}, If_None_Match="*") for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 409]
    assert answers[1].code == "exists"


async def test_stages_move_over_http(site) -> None:
    """Pending, promote, disable, destroy, delete: each answers what is so afterwards."""
    await site.put("a/b")
    await site.put("a/b", "two", stage="pending")
    promoted = await site.ask("POST", "/v1/tokens/a/b/-/versions/2/promote")
    assert (promoted.status, promoted.body["stage"]) == (200, "current")
    versions = (await site.ask("GET", "/v1/tokens/a/b/-/versions")).body["items"]
    assert [(one["version"], one["stage"]) for one in versions] == [(2, "current"), (1, "previous")]
    destroyed = await site.ask("POST", "/v1/tokens/a/b/-/versions/1/destroy")
    assert (destroyed.body["stage"], destroyed.body["sealed_bytes"]) == ("destroyed", 0)
    assert (await site.ask("POST", "/v1/tokens/a/b/-/versions/1/destroy")).status == 410
    assert (await site.ask("POST", "/v1/tokens/a/b/-/versions/2/destroy")).code == "in_use"
    gone = await site.ask("DELETE", "/v1/tokens/a/b")
    assert (gone.status, gone.raw) == (204, b"")
    assert (await site.ask("GET", "/v1/tokens/a/b")).status == 404


async def test_going_back_over_http(site) -> None:
    """Rollback answers the version that is current now, guarded by the revision; a second one is refused."""
    await site.put("a/b")
    await site.put("a/b", "two")
    tag = (await site.ask("GET", "/v1/tokens/a/b")).headers["ETag"]
    stale = await site.ask("POST", "/v1/tokens/a/b/-/rollback", If_Match='"77"')
    assert (stale.status, stale.code) == (412, "precondition_failed")
    back = await site.ask("POST", "/v1/tokens/a/b/-/rollback", If_Match=tag)
    assert (back.status, back.body["version"], back.body["stage"]) == (200, 1, "current")
    assert back.headers["ETag"] == (await site.ask("GET", "/v1/tokens/a/b")).headers["ETag"]
    again = await site.ask("POST", "/v1/tokens/a/b/-/rollback")
    assert (again.status, again.code) == (409, "no_former_version")
    retired = await site.ask("POST", "/v1/tokens/a/b/-/versions/2/retire")
    assert (retired.status, retired.body["stage"]) == (200, "retired")
    assert (await site.ask("POST", "/v1/tokens/a/b/-/versions/1/retire")).code == "in_use"


async def test_many_values_at_once_answer_one_by_one(site) -> None:
    """One bad line never fails the rest, and no answer repeats a value."""
    items = [
        {"token": "a", "value": "canary-one"},
        {"token": "B A D", "value": "canary-two"},
        {"token": "c", "value": "x", "value_b64": "eA"},
        {"token": "d", "value_b64": "***"},
    ]
    answer = await site.ask("POST", "/v1/tokens", {"items": items})
    assert answer.status == 200
    assert [(one["token"], one["version"], one["code"]) for one in answer.body["results"]] == [
        ("a", 1, None),
        ("B A D", None, "bad_request"),
        ("c", None, "bad_request"),
        ("d", None, "bad_request"),
    ]
    assert b"canary" not in answer.raw


async def test_revealing_is_off_where_settings_say_so(open_site) -> None:
    """A broker that forbids revealing answers 403 with its own code, even to an admin."""
    async with open_site(reveal=False) as site:
        await site.put("a")
        answer = await site.ask("POST", "/v1/tokens/a/-/reveal", {})
    assert (answer.status, answer.code) == (403, "reveal_off")
