"""What operators do to tokens: putting, promoting, disabling, destroying, deleting."""

from __future__ import annotations

import asyncio

import pytest

from broker.admin.asked import NewVersion
from broker.admin.errors import Exists, InUse, NoFormer, PreconditionFailed, ValueRefused
from broker.audit.entries import TokenChanged
from broker.errors import BadRequest, Conflict, Gone, NotFound, Unavailable
from broker.policy.errors import LabelsRefused, NameRefused

ROOT = "admin:root"
NAME = "github/ci"


async def put(house, value=b"value", **more):
    return await house.services.putter.put(NewVersion(token=NAME, value=value, **more), actor=ROOT)


async def stages(house, name=NAME):
    page = await house.services.book.versions(name, after=None)
    return {record.version: record.stage for record in page.records}


async def test_the_first_value_makes_the_token(house) -> None:
    """The first put creates the token with version 1 current, in the default keyring, and records one entry."""
    made = await put(house, labels={"team": "ci"})
    token = await house.services.book.token(NAME)
    assert (token.current, token.latest, token.keyring, token.labels) == (1, 1, "default", {"team": "ci"})
    assert (made.version.stage, made.version.content_type) == ("current", "text/plain")
    changes = [entry for entry in await house.recorded() if isinstance(entry, TokenChanged)]
    assert [(entry.change, entry.version, entry.actor) for entry in changes] == [("put", 1, ROOT)]


async def test_each_put_moves_the_versions_before_it_one_step_down(house) -> None:
    """After three puts the third is current, the second previous, the first retired."""
    for _ in range(3):
        await put(house)
    assert await stages(house) == {1: "retired", 2: "previous", 3: "current"}


async def test_a_pending_value_changes_nothing_until_it_is_promoted(house) -> None:
    """A pending version leaves the current one alone; promoting swaps them."""
    await put(house)
    await put(house, stage="pending")
    assert await stages(house) == {1: "current", 2: "pending"}
    await house.services.tokens.promote(NAME, 2, actor=ROOT)
    assert await stages(house) == {1: "previous", 2: "current"}


async def test_a_former_version_can_be_made_current_again(house) -> None:
    """Promoting the previous version rolls back: the two change places."""
    await put(house)
    await put(house)
    await house.services.tokens.promote(NAME, 1, actor=ROOT)
    assert await stages(house) == {1: "current", 2: "previous"}
    assert (await house.services.book.token(NAME)).current == 1


async def test_promoting_the_current_version_writes_nothing(house) -> None:
    """Promoting what is current keeps the revision and leaves no audit entry."""
    before = (await put(house)).token
    entries = len(await house.recorded())
    assert (await house.services.tokens.promote(NAME, 1, actor=ROOT)).token.rev == before.rev
    assert len(await house.recorded()) == entries


async def test_parallel_puts_all_succeed_with_numbers_of_their_own(house) -> None:
    """Five puts at once give five versions without gaps, exactly one of them current."""
    done = await asyncio.gather(*(put(house, f"{n}".encode()) for n in range(5)))
    assert sorted(one.version.version for one in done) == [1, 2, 3, 4, 5]
    found = await stages(house)
    assert sorted(found.values()) == ["current", "previous", "retired", "retired", "retired"]


async def test_a_put_on_another_revision_is_refused(house) -> None:
    """Compare-and-set: a stale revision is refused with the current one named, and nothing is stored."""
    await put(house)
    second = (await put(house)).token
    with pytest.raises(PreconditionFailed) as refused:
        await house.services.putter.put(NewVersion(token=NAME, value=b"x"), actor=ROOT, if_match=1)
    assert refused.value.current == second.rev
    assert len(await stages(house)) == 2


async def test_a_put_that_wants_a_fresh_token_is_refused_where_one_is(house) -> None:
    """Revision 0 means "must not exist yet"."""
    new = NewVersion(token=NAME, value=b"x")
    await house.services.putter.put(new, actor=ROOT, if_match=0)
    with pytest.raises(Exists):
        await house.services.putter.put(new, actor=ROOT, if_match=0)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"value": b""}, ValueRefused),
        ({"value": bytes(65_537)}, ValueRefused),
        ({"token": "Github/CI"}, NameRefused),
        ({"token": "a/b/c/d/e/f/g/h/i"}, NameRefused),
        ({"labels": {f"l{n}": "" for n in range(33)}}, LabelsRefused),
        ({"content_type": "nonsense"}, ValueRefused),
        ({"content_type": "text/" + "x" * 124}, ValueRefused),
        ({"keyring": "none-such"}, NotFound),
        ({"keyring": "Not A Name"}, NameRefused),
        ({"previous_valid_s": -1}, ValueRefused),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value.__name__,
)
async def test_what_is_out_of_bounds_is_refused_and_leaves_nothing(house, more, error) -> None:
    """Each bound of a put has its typed error, under BadRequest or NotFound, and stores neither token nor entry."""
    entries = len(await house.recorded())
    with pytest.raises(error):
        await house.services.putter.put(NewVersion(**{"token": NAME, "value": b"x", **more}), actor=ROOT)
    assert await house.services.book.find(NAME) is None
    assert len(await house.recorded()) == entries


@pytest.mark.parametrize("size", [1, 65_536])
async def test_values_at_their_bounds_come_back_byte_for_byte(house, size) -> None:
    """The smallest and the largest value are stored and revealed unchanged."""
    value = bytes(range(256)) * 256
    await put(house, value[:size])
    revealed = await house.services.revealer.reveal(NAME, version=None, actor=ROOT)
    assert revealed.value.reveal() == value[:size]


async def test_a_token_stays_in_its_keyring(house) -> None:
    """Putting into another keyring than the token's is refused, and says what to do."""
    await house.services.keys.add_keyring("other", kms_keys=(), authorize="broker", actor=ROOT)
    await put(house)
    with pytest.raises(Conflict, match="delete it and put it again"):
        await put(house, keyring="other")


async def test_the_current_version_is_destroyed_only_while_nobody_may_lease_it(house) -> None:
    """Destroying the current version is refused while the token is enabled, and empties it for good afterwards."""
    await put(house)
    with pytest.raises(InUse):
        await house.services.tokens.destroy(NAME, 1, actor=ROOT)
    await house.services.tokens.disable(NAME, actor=ROOT)
    done = await house.services.tokens.destroy(NAME, 1, actor=ROOT)
    assert (done.token.current, done.version.sealed) == (0, b"")
    with pytest.raises(Gone):
        await house.services.tokens.promote(NAME, 1, actor=ROOT)
    with pytest.raises(Gone):
        await house.services.tokens.destroy(NAME, 1, actor=ROOT)


async def test_disabling_twice_is_one_change(house) -> None:
    """Asking for what is so already changes neither revision nor log."""
    await put(house)
    first = await house.services.tokens.disable(NAME, actor=ROOT)
    again = await house.services.tokens.disable(NAME, actor=ROOT)
    assert (first.disabled, again.rev) == (True, first.rev)
    changes = [entry.change for entry in await house.recorded() if isinstance(entry, TokenChanged)]
    assert changes == ["put", "disabled"]


async def test_rolling_back_makes_the_previous_version_current(house) -> None:
    """The two change places in one recorded change, however many versions were retired before."""
    for _ in range(3):
        await put(house)
    done = await house.services.tokens.rollback(NAME, actor=ROOT)
    assert (done.token.current, done.version.version, done.version.stage) == (2, 2, "current")
    assert await stages(house) == {1: "retired", 2: "current", 3: "previous"}
    last = [entry for entry in await house.recorded() if isinstance(entry, TokenChanged)][-1]
    assert (last.change, last.version, last.actor) == ("rolled_back", 2, ROOT)


async def test_rolling_back_twice_goes_back_once(house) -> None:
    """Whoever repeats the command does not arrive at the version that was rolled back from."""
    await put(house)
    await put(house)
    await house.services.tokens.rollback(NAME, actor=ROOT)
    before = await house.services.book.token(NAME)
    with pytest.raises(NoFormer, match=r"rolled back already: version 1 is current.*promote 2"):
        await house.services.tokens.rollback(NAME, actor=ROOT)
    assert await house.services.book.token(NAME) == before


@pytest.mark.parametrize("loss", ["never there", "retired", "destroyed"])
async def test_without_a_previous_version_there_is_no_way_back(house, loss) -> None:
    """A token with one version, or whose previous one was retired or destroyed, stays as it is."""
    await put(house)
    if loss != "never there":
        await put(house)
        end = house.services.tokens.retire if loss == "retired" else house.services.tokens.destroy
        await end(NAME, 1, actor=ROOT)
    before = await house.services.book.token(NAME)
    with pytest.raises(NoFormer, match=f"version {before.current} is current"):
        await house.services.tokens.rollback(NAME, actor=ROOT)
    assert await house.services.book.token(NAME) == before


async def test_a_version_that_does_not_open_is_not_rolled_back_to(house, tmp_path) -> None:
    """While the data key of the previous version cannot be opened, rolling back is refused and changes nothing."""
    await put(house)
    await put(house)
    before = await house.services.book.token(NAME)
    (tmp_path / "kms.key").rename(tmp_path / "away")
    house.broker.vault.flush()
    with pytest.raises(Unavailable):
        await house.services.tokens.rollback(NAME, actor=ROOT)
    assert await house.services.book.token(NAME) == before


async def test_rolling_back_asks_for_the_revision_it_was_told(house) -> None:
    """With another revision than the token has, nothing changes."""
    await put(house)
    await put(house)
    with pytest.raises(PreconditionFailed):
        await house.services.tokens.rollback(NAME, actor=ROOT, if_match=1)
    assert await stages(house) == {1: "previous", 2: "current"}


@pytest.mark.parametrize("stage", ["pending", "previous"])
async def test_what_is_not_current_can_be_retired_and_promoted_again(house, stage) -> None:
    """Retiring is one recorded change, doing it again none; the version opens and can be promoted as before."""
    await put(house)
    await put(house, stage="pending" if stage == "pending" else "current")
    number = 2 if stage == "pending" else 1
    first = await house.services.tokens.retire(NAME, number, actor=ROOT)
    again = await house.services.tokens.retire(NAME, number, actor=ROOT)
    assert (first.version.stage, again.token.rev) == ("retired", first.token.rev)
    changes = [(entry.change, entry.version) for entry in await house.recorded() if isinstance(entry, TokenChanged)]
    assert changes == [("put", 1), ("put", 2), ("retired", number)]
    promoted = await house.services.tokens.promote(NAME, number, actor=ROOT)
    assert (promoted.token.current, promoted.version.stage) == (number, "current")


async def test_the_current_version_is_not_retired_nor_a_destroyed_one(house) -> None:
    """Current wants another one promoted first, also while the token is disabled; destroyed is gone."""
    await put(house)
    await put(house)
    await house.services.tokens.destroy(NAME, 1, actor=ROOT)
    with pytest.raises(Gone):
        await house.services.tokens.retire(NAME, 1, actor=ROOT)
    await house.services.tokens.disable(NAME, actor=ROOT)
    with pytest.raises(InUse, match="promote another one first"):
        await house.services.tokens.retire(NAME, 2, actor=ROOT)


async def test_labels_are_replaced_as_a_whole(house) -> None:
    """Describing replaces the labels and keeps what is not named."""
    await put(house, labels={"a": "1"}, previous_valid_s=60)
    after = await house.services.tokens.describe(NAME, labels={"b": "2"}, previous_valid_s=None, actor=ROOT)
    assert (after.labels, after.previous_valid_s) == ({"b": "2"}, 60)


async def test_deleting_removes_every_version(house) -> None:
    """A deleted token leaves no row; putting it again begins at version 1."""
    for _ in range(3):
        await put(house)
    await house.services.tokens.delete(NAME, actor=ROOT)
    with pytest.raises(NotFound):
        await house.services.book.token(NAME)
    assert (await put(house)).version.version == 1
    assert await stages(house) == {1: "current"}


@pytest.mark.parametrize("act", ["show", "promote", "rollback", "retire", "disable", "delete", "reveal"])
async def test_what_is_not_there_is_not_found(house, act) -> None:
    """Every operation on an unknown token says NotFound."""
    services = house.services
    calls = {
        "show": lambda: services.book.token(NAME),
        "promote": lambda: services.tokens.promote(NAME, 1, actor=ROOT),
        "rollback": lambda: services.tokens.rollback(NAME, actor=ROOT),
        "retire": lambda: services.tokens.retire(NAME, 1, actor=ROOT),
        "disable": lambda: services.tokens.disable(NAME, actor=ROOT),
        "delete": lambda: services.tokens.delete(NAME, actor=ROOT),
        "reveal": lambda: services.revealer.reveal(NAME, version=None, actor=ROOT),
    }
    with pytest.raises(NotFound):
        await calls[act]()


async def test_lists_by_prefix_are_whole_and_in_order(house) -> None:
    """A prefix finds the exact name, longer ones, and nothing else, page by page."""
    for name in ("a", "app", "app/one", "app/two", "app-2", "apple", "b"):
        await house.services.putter.put(NewVersion(token=name, value=b"x"), actor=ROOT)
    seen, after = [], None
    while True:
        page = await house.services.book.tokens(prefix="app", after=after, limit=2)
        seen += [record.name for record in page.records]
        if (after := page.next) is None:
            break
    assert seen == ["app", "app-2", "app/one", "app/two", "apple"]


async def test_names_are_checked_before_storage_is_asked(house) -> None:
    """A text that no token can be called is a bad request, not a missing token."""
    with pytest.raises(BadRequest):
        await house.services.book.token("../etc/passwd")
