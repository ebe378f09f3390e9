"""The open KMS keys of a process: opened all or none, each closed by the task that opened it, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.kms_keys import owning_kms_keys
from kms.errors import BadKey, Denied


class Doors:
    """Opens anything but `bad:…`, and keeps a list of what was opened and closed, and by which task."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.tasks: dict[str, Any] = {}
        self.hold: asyncio.Event | None = None
        self.reached = asyncio.Event()

    @asynccontextmanager
    async def open(self, uri: str) -> AsyncIterator[Any]:
        self.reached.set()
        if self.hold is not None:
            await self.hold.wait()
        if uri.startswith("bad:"):
            raise BadKey("it is bad", kms_key=uri)
        self.tasks[uri] = asyncio.current_task()
        self.said.append(f"open {uri}")
        try:
            yield uri
        finally:
            assert asyncio.current_task() is self.tasks[uri]
            self.said.append(f"close {uri}")
        if uri.startswith("stuck:"):
            raise Denied("it does not close", kms_key=uri)


async def test_what_was_opened_is_closed_at_the_end() -> None:
    """Each is there while the context lasts, and closed after it by its own task."""
    doors = Doors()
    async with owning_kms_keys(doors.open) as keys:
        assert await keys.open(["a:1", "b:1", "a:1"]) == ("a:1", "b:1")
        assert await keys.open(["b:1", "c:1"]) == ("c:1",)
        assert list(keys) == ["a:1", "b:1", "c:1"]
    assert sorted(doors.said[3:]) == ["close a:1", "close b:1", "close c:1"]


async def test_all_are_opened_or_none() -> None:
    """One that cannot be opened closes those before it; what was open already stays."""
    doors = Doors()
    async with owning_kms_keys(doors.open) as keys:
        await keys.open(["a:1"])
        with pytest.raises(BadKey):
            await keys.open(["b:1", "bad:1", "c:1"])
        assert list(keys) == ["a:1"]
        await asyncio.sleep(0)
        assert doors.said == ["open a:1", "open b:1", "close b:1"]
        assert await keys.open(["b:1"]) == ("b:1",)


async def test_one_leaves_and_the_others_stay() -> None:
    """It is gone at once, and closed when its last user says so."""
    doors = Doors()
    async with owning_kms_keys(doors.open) as keys:
        await keys.open(["a:1", "b:1"])
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
            opening = group.create_task(keys.open(["a:1"]))
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
            await keys.open(["stuck:1", "a:1"])
    assert [line["kms_key"] for line in logs if line["event"] == "kms_key_not_closed"] == ["stuck:1"]
    assert "close a:1" in doors.said


async def test_an_error_of_the_body_passes_as_it_is() -> None:
    """Not inside a group; and everything is closed."""
    doors = Doors()

    async def body() -> None:
        async with owning_kms_keys(doors.open) as keys:
            await keys.open(["a:1"])
            raise LookupError

    with pytest.raises(LookupError):
        await body()
    assert doors.said[-1] == "close a:1"
