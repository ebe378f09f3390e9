"""Revealing: on record before it is shown, and only where it is allowed."""

from __future__ import annotations

import pytest

from broker.admin.asked import NewVersion
from broker.admin.errors import RevealOff
from broker.admin.reveal import Revealer
from broker.audit.entries import TokenRevealed
from broker.errors import Gone, NotFound, Unavailable

ROOT = "admin:root"
CANARY = b"canary-5f1c0e77"


async def put(house, **more):
    await house.services.putter.put(NewVersion(token="github/ci", value=CANARY, **more), actor=ROOT)


async def shown(house) -> list[int]:
    return [entry.version for entry in await house.recorded() if isinstance(entry, TokenRevealed)]


async def test_a_reveal_is_on_record_with_its_version(house) -> None:
    """The current version is shown unless another is named, each time with an entry."""
    await put(house)
    await put(house)
    for version in (None, 1):
        revealed = await house.services.revealer.reveal("github/ci", version=version, actor=ROOT)
        assert revealed.value.reveal() == CANARY
    assert await shown(house) == [2, 1]


async def test_what_cannot_be_recorded_is_not_shown(house) -> None:
    """With the audit log refusing, a reveal fails and gives nothing."""
    await put(house)
    house.broker.journal.refuse("the disk is full")
    with pytest.raises(Unavailable):
        await house.services.revealer.reveal("github/ci", version=None, actor=ROOT)


async def test_revealing_can_be_switched_off(house) -> None:
    """Where settings forbid it, nobody is shown anything, and nothing is opened or recorded."""
    await put(house)
    revealer = Revealer(
        authority=house.broker.authority,
        book=house.services.book,
        vault=house.broker.vault,
        clock=house.clock,
        allowed=False,
    )
    with pytest.raises(RevealOff):
        await revealer.reveal("github/ci", version=None, actor=ROOT)
    assert await shown(house) == []


async def test_there_must_be_something_to_show(house) -> None:
    """No current version is NotFound, a destroyed one is Gone; neither is recorded as shown."""
    await put(house, stage="pending")
    reveal = house.services.revealer.reveal
    with pytest.raises(NotFound):
        await reveal("github/ci", version=None, actor=ROOT)
    with pytest.raises(NotFound):
        await reveal("github/ci", version=9, actor=ROOT)
    await house.services.tokens.destroy("github/ci", 1, actor=ROOT)
    with pytest.raises(Gone):
        await reveal("github/ci", version=1, actor=ROOT)
    assert await shown(house) == []


async def test_values_are_nowhere_at_rest_and_in_no_repr(house, tmp_path) -> None:
    """A canary value is in no file of the broker, and in the text of no object that carries it."""
    await put(house)
    new = NewVersion(token="github/ci", value=CANARY)
    revealed = await house.services.revealer.reveal("github/ci", version=None, actor=ROOT)
    assert CANARY.decode() not in repr(new) + repr(revealed) + str(revealed)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert CANARY not in path.read_bytes(), path.name
