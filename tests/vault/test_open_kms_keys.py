"""The KMS keys of a process: each closed by the task that opened it, and in its place when it does not open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.kms_keys import owning_kms_keys
from kms.errors import BadKey, Denied
from kms.port import Wrap


class Doors:
    """Opens anything, `bad:…` once `mended`, and keeps a list of what was opened and closed; who opens must close."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.hold: asyncio.Event | None = None
        self.mended = False
        self.reached = asyncio.Event()

    @asynccontextmanager
    async def open(self, uri: str) -> AsyncIterator[Any]:
        self.reached.set()
        if self.hold is not None:
            await self.hold.wait()
        if uri.startswith("bad:") and not self.mended:
            raise BadKey("it is bad", kms_key=uri)
        opened_by = asyncio.current_task()
        self.said.append(f"open {uri}")
        try:
            yield uri
        finally:
            assert asyncio.current_task() is opened_by
            self.said.append(f"close {uri}")
        if uri.startswith("stuck:"):
            raise Denied("it does not close", kms_key=uri)


async def test_what_was_opened_is_closed_at_the_end() -> None:
    """Each is there while the context lasts, is opened once, and closed after it by its own task."""
    doors = Doors()
    async with owning_kms_keys(doors.open) as keys:
        assert [await keys.open(uri) for uri in ("a:1", "b:1", "a:1")] == [True, True, False]
        assert list(keys) == ["a:1", "b:1"]
    assert sorted(doors.said[2:]) == ["close a:1", "close b:1"]


async def test_what_does_not_open_is_not_here() -> None:
    """It may be opened later; what was open already stays."""
    doors = Doors()
    async with owning_kms_keys(doors.open) as keys:
        await keys.open("a:1")
        with pytest.raises(BadKey):
            await keys.open("bad:1")
        assert list(keys) == ["a:1"]
        doors.mended = True
        assert await keys.open("bad:1")


async def test_at_a_start_each_has_its_place() -> None:
    """Those that do not open are here in their order, and tell whoever asks them why, each time with a new error."""
    doors = Doors()
    async with owning_kms_keys(doors.open) as keys:
        await keys.open_or_keep_place(["bad:1", "a:1", "bad:1"])
        assert list(keys) == ["bad:1", "a:1"]
        assert {uri: str(error) for uri, error in keys.away().items()} == {"bad:1": "bad:1: it is bad"}
        away = keys["bad:1"]
        asked = [away.check, away.describe, lambda: away.generate({}), lambda: away.wrap(b"", {})]
        asked.append(lambda: away.unwrap(Wrap(key_version="", blob=b"x"), {}))
        told = []
        for ask in asked:
            with pytest.raises(BadKey, match="it is bad") as caught:
                await ask()
            told.append(caught.value)
        assert {error.kms_key for error in told} == {"bad:1"}
        assert len({id(error) for error in told}) == len(asked)


async def test_one_that_was_away_comes_to_its_place() -> None:
    """Once it opens; until then each try says why not."""
    doors = Doors()
    async with owning_kms_keys(doors.open) as keys:
        await keys.open_or_keep_place(["bad:1", "a:1"])
        place = keys["bad:1"]
        assert isinstance(await keys.open_again("bad:1"), BadKey)
        assert keys["bad:1"] is place  # whoever keeps a breaker for it, goes on
        doors.mended = True
        assert await keys.open_again("bad:1") is None
        assert (list(keys), keys.away(), keys["bad:1"]) == (["bad:1", "a:1"], {}, "bad:1")
    assert "close bad:1" in doors.said


async def test_one_that_leaves_while_it_is_opened_does_not_come_back() -> None:
    """It is closed as soon as it comes; one that was opened in its place meanwhile stays."""
    doors = Doors()
    async with owning_kms_keys(doors.open) as keys:
        await keys.open_or_keep_place(["bad:1"])
        doors.mended, doors.hold = True, asyncio.Event()
        doors.reached.clear()
        async with asyncio.TaskGroup() as group:
            group.create_task(keys.open_again("bad:1"))
            await doors.reached.wait()
            keys.take_out("bad:1")()
            held, doors.hold = doors.hold, None
            await keys.open("bad:1")
            held.set()
        await asyncio.sleep(0)
        assert (list(keys), keys.away()) == (["bad:1"], {})
        assert doors.said == ["open bad:1", "open bad:1", "close bad:1"]
    assert doors.said.count("close bad:1") == 2


async def test_one_leaves_and_the_others_stay() -> None:
    """It is gone at once, and closed when its last user says so."""
    doors = Doors()
    async with owning_kms_keys(doors.open) as keys:
        await keys.open_or_keep_place(["a:1", "b:1"])
        close = keys.take_out("a:1")
        assert "a:1" not in keys
        assert "close a:1" not in doors.said
        close()
        await asyncio.sleep(0)
        assert doors.said[-1] == "close a:1"


async def test_giving_up_leaves_nothing_open() -> None:
    """Cancelled while a key is being opened, that key is closed as soon as it comes."""
    doors = Doors()
    async with owning_kms_keys(doors.open) as keys:
        doors.hold = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(keys.open("a:1"))
            await doors.reached.wait()
            opening.cancel()
        assert opening.cancelled()
        assert list(keys) == []
        doors.hold.set()
    assert doors.said == ["open a:1", "close a:1"]


async def test_a_failure_to_close_is_a_line_in_the_log() -> None:
    """It harms nobody else, and ends nothing."""
    doors = Doors()
    with capture_logs() as logs:
        async with owning_kms_keys(doors.open) as keys:
            await keys.open_or_keep_place(["stuck:1", "a:1"])
    assert [line["kms_key"] for line in logs if line["event"] == "kms_key_not_closed"] == ["stuck:1"]
    assert "close a:1" in doors.said


async def test_an_error_of_the_body_passes_as_it_is() -> None:
    """Not inside a group; and everything is closed."""
    doors = Doors()

    async def body() -> None:
        async with owning_kms_keys(doors.open) as keys:
            await keys.open("a:1")
            raise LookupError

    with pytest.raises(LookupError):
        await body()
    assert doors.said[-1] == "close a:1"
