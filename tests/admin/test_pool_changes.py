"""Making, changing and ending pools, and what is refused."""

from __future__ import annotations

import pytest

from broker.admin.asked import NewPool, NewVersion
from broker.admin.errors import Exists, InUse, PoolRefused, PreconditionFailed, WrongKind
from broker.audit.entries import PoolChanged
from broker.errors import NotFound

ROOT = "admin:root"


@pytest.fixture
async def tokens(house):
    """Tokens a/1 to a/3 and other."""
    for name in ("a/1", "a/2", "a/3", "other"):
        await house.services.putter.put(NewVersion(token=name, value=b"v"), actor=ROOT)
    return house


async def define(house, token="pool", members=("a/1", "a/2"), **more):
    return await house.services.pools.define(NewPool(token=token, members=members, **more), actor=ROOT)


async def test_a_pool_is_made_changed_and_deleted(tokens) -> None:
    """Each change is on record once; what is left out stays; its members outlive it."""
    pools = tokens.services.pools
    made = await define(tokens, leases_max=2)
    assert (made.members, made.leases_max, made.cool_down_s, made.witnesses) == (("a/1", "a/2"), 2, 30, 2)
    assert (await define(tokens)).rev == made.rev
    more = await pools.add_member("pool", "a/3", actor=ROOT)
    assert (more.members, more.leases_max, more.rev) == (("a/1", "a/2", "a/3"), 2, 2)
    less = await pools.remove_member("pool", "a/1", actor=ROOT)
    assert less.members == ("a/2", "a/3")
    assert (await tokens.services.book.token("pool")).kind == "pool"
    await pools.delete("pool", actor=ROOT)
    with pytest.raises(NotFound):
        await tokens.services.book.token("pool")
    assert (await tokens.services.book.token("a/2")).kind == "stored"
    changes = [entry.change for entry in await tokens.recorded() if isinstance(entry, PoolChanged)]
    assert changes == ["set", "set", "set", "deleted"]


async def test_a_bounded_token_keeps_its_versions(tokens) -> None:
    """It is put as before, and is a stored token again when the bound ends."""
    await define(tokens, "other", ["other"], leases_max=1)
    put = await tokens.services.putter.put(NewVersion(token="other", value=b"w"), actor=ROOT)
    assert (put.token.kind, put.token.current) == ("pool", 2)
    with pytest.raises(InUse, match="token pool delete"):
        await tokens.services.tokens.delete("other", actor=ROOT)
    await tokens.services.pools.delete("other", actor=ROOT)
    assert (await tokens.services.book.token("other")).kind == "stored"
    await tokens.services.tokens.delete("other", actor=ROOT)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"members": ()}, PoolRefused, "1 to 100 members"),
        ({"members": ("pool", "a/1")}, PoolRefused, "only alone"),
        ({"leases_max": 501}, PoolRefused, "at most 1000"),
        ({"leases_max": -1}, PoolRefused, "leases_max -1"),
        ({"cool_down_s": 0}, PoolRefused, "1 to 900"),
        ({"witnesses": 0}, PoolRefused, "1 to 10"),
        ({"token": "other", "members": ("other",)}, PoolRefused, "how many leases"),
        ({"token": "other"}, Exists, "values of its own"),
        ({"token": "none", "members": ("none",), "leases_max": 1}, NotFound, "no such token"),
        ({"members": ("a/1", "a/9")}, NotFound, "a/9"),
    ],
)
async def test_what_no_pool_can_be_is_refused(tokens, change, error, says) -> None:
    """With what is wrong and the limit; nothing is changed."""
    with pytest.raises(error, match=says):
        await define(tokens, **change)
    assert not list(tokens.broker.authority.pools)


async def test_a_token_is_in_one_pool_and_no_pool_is_in_another(tokens) -> None:
    """Else its bound would hold in each of them alone."""
    await define(tokens)
    with pytest.raises(InUse, match="member of pool pool"):
        await define(tokens, "second", ["a/1"])
    with pytest.raises(InUse, match="member of pool pool"):
        await define(tokens, "a/1", ["a/1"], leases_max=1)
    with pytest.raises(PoolRefused, match="a pool or bounded"):
        await define(tokens, "second", ["pool"])
    await define(tokens, "other", ["other"], leases_max=1)
    with pytest.raises(PoolRefused, match="a pool or bounded"):
        await define(tokens, "second", ["other"])


async def test_what_a_pool_needs_is_not_deleted_and_it_has_no_value(tokens) -> None:
    """The last member stays too."""
    await define(tokens, members=["a/1"])
    with pytest.raises(InUse, match="remove-member"):
        await tokens.services.tokens.delete("a/1", actor=ROOT)
    with pytest.raises(PoolRefused, match="1 to 100"):
        await tokens.services.pools.remove_member("pool", "a/1", actor=ROOT)
    with pytest.raises(WrongKind):
        await tokens.services.putter.put(NewVersion(token="pool", value=b"v"), actor=ROOT)
    with pytest.raises(PreconditionFailed):
        await tokens.services.pools.delete("pool", actor=ROOT, if_match=9)


async def test_a_quarantine_is_shown_and_ended(tokens) -> None:
    """A member that is not there is not found; a release of one that does well writes nothing."""
    pools, book = tokens.services.pools, tokens.services.pool_book
    await define(tokens)
    await pools.quarantine("pool", "a/1", reason="locked", actor=ROOT)
    status = await book.status("pool")
    assert [(member.member, member.health) for member in status.members] == [("a/1", "quarantined"), ("a/2", "well")]
    await pools.release("pool", "a/1", actor=ROOT)
    await pools.release("pool", "a/2", actor=ROOT)
    assert [member.health for member in (await book.status("pool")).members] == ["well", "well"]
    with pytest.raises(NotFound, match="has no member 'a/3'"):
        await pools.quarantine("pool", "a/3", reason="locked", actor=ROOT)
    entries = [entry for entry in await tokens.recorded() if isinstance(entry, PoolChanged)]
    assert [entry.change for entry in entries] == ["set", "quarantined", "released"]
