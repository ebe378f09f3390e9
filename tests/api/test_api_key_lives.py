"""Keys over HTTP: what is refused says what depends on it, what is repeated harms nothing."""

from __future__ import annotations


async def active(site) -> str:
    return (await site.ask("GET", "/v1/keyrings/default")).body["active_data_key"]


async def test_a_data_key_ends_over_http(site) -> None:
    """409 while it is active or has versions, 412 at another revision, then destroyed for good."""
    await site.put("a/b")
    old = await active(site)
    assert (await site.ask("POST", f"/v1/keys/{old}/destroy")).code == "in_use"
    await site.ask("POST", "/v1/keyrings/default/rotate")
    refused = await site.ask("POST", f"/v1/keys/{old}/destroy")
    assert (refused.status, refused.code) == (409, "in_use")
    assert "a/b version 1" in refused.body["detail"]
    done = await site.ask("POST", "/v1/keyrings/default/reseal", {})
    assert done.body == {"values": 1, "failed": [], "remaining": 0, "counted_all": True, "next": None}
    shown = await site.ask("GET", f"/v1/keys/{old}")
    assert (await site.ask("POST", f"/v1/keys/{old}/destroy", If_Match='"999"')).status == 412
    gone = await site.ask("POST", f"/v1/keys/{old}/destroy", If_Match=shown.headers["ETag"])
    assert (gone.status, gone.body["state"], gone.body["wraps"]) == (200, "destroyed", [])
    again = await site.ask("POST", f"/v1/keys/{old}/destroy")
    assert again.body == gone.body


async def test_a_walk_tells_where_to_go_on(site) -> None:
    """`next` of one call is `after` of the following one; bounds are refused."""
    for name in ("a", "b", "c"):
        await site.put(name)
    await site.ask("POST", "/v1/keyrings/default/rotate")
    first = (await site.ask("POST", "/v1/keyrings/default/reseal", {"limit": 2})).body
    assert (first["values"], first["remaining"], first["next"]["token"]) == (2, 1, "b")
    await site.clock.advance(1.0)
    second = (await site.ask("POST", "/v1/keyrings/default/reseal", {"limit": 2, "after": first["next"]})).body
    assert (second["values"], second["remaining"], second["next"]) == (1, 0, None)
    for wrong in ({"limit": 0}, {"limit": 501}, {"rate_per_s": 0}, {"rate_per_s": 10_001}, {"after": {}}):
        assert (await site.ask("POST", "/v1/keyrings/default/reseal", wrong)).status == 400


async def test_what_is_in_line_needs_no_rewrap(site) -> None:
    """Keyring and root key answer that nothing was done, and that nothing remains."""
    nothing = {"rewrapped": [], "failed": [], "remaining": 0, "next": None}
    assert (await site.ask("POST", "/v1/keyrings/default/rewrap", {})).body == nothing
    assert (await site.ask("POST", "/v1/root/rewrap")).body == nothing
    assert (await site.ask("POST", "/v1/keyrings/none/rewrap", {})).status == 404


async def test_a_kms_key_in_the_configuration_is_not_retired(site) -> None:
    """409 with what to do; one that nobody knows is nowhere, and that is an answer."""
    wraps = (await site.ask("GET", "/v1/keys")).body["items"][0]["wraps"]
    assert (await site.ask("POST", "/v1/kms-keys/retire", {"kms_key": wraps[0]["kms_key"]})).code == "in_use"
    unknown = await site.ask("POST", "/v1/kms-keys/retire", {"kms_key": "local:/x"})
    assert unknown.body == {"kms_key": "local:/x", "data_keys": 0, "root": False}


async def test_a_value_that_the_kms_gives_to_workers_is_not_revealed(site) -> None:
    """403 `reveal_by_kms`, whatever the role."""
    await site.ask("POST", "/v1/keyrings", {"keyring": "payments", "authorize": "kms"})
    await site.put("pay/stripe", keyring="payments")
    refused = await site.ask("POST", "/v1/tokens/pay/stripe/-/reveal", {})
    assert (refused.status, refused.code) == (403, "reveal_by_kms")
