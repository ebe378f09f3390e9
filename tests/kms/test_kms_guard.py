"""The guard around adapters: wrong replies, unknown failures and silence become typed errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from kms.conformance import CONTEXT, KEY
from kms.errors import BadKey, Corrupt, Denied, Disabled, KmsError, Unavailable
from kms.guard import GuardedKms
from kms.port import WRAP_BYTES_MAX, Caller, Description, Kms, Wrap

URI = "scripted:key"
WRAP = Wrap(key_version="1", blob=b"blob")


class Scripted:
    """An adapter that answers every call with what it is told to: a value, an error, or whatever `act` does."""

    uri = URI

    def __init__(self, reply: Any = None, *, act: Callable[[], Awaitable[Any]] | None = None) -> None:
        self.reply = reply
        self.act = act
        self.calls = 0
        self.context: Mapping[str, str] = {}

    async def answer(self) -> Any:
        self.calls += 1
        if self.act is not None:
            return await self.act()
        if isinstance(self.reply, BaseException):
            raise self.reply
        return self.reply

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Any:
        self.context = context
        return await self.answer()

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> Any:
        return await self.answer()

    async def generate(self, context: Mapping[str, str]) -> Any:
        return await self.answer()

    async def check(self) -> None:
        await self.answer()

    async def describe(self) -> Any:
        return await self.answer()


CALLS: dict[str, Callable[[Kms], Awaitable[object]]] = {
    "wrap": lambda kms: kms.wrap(KEY, CONTEXT),
    "unwrap": lambda kms: kms.unwrap(WRAP, CONTEXT),
    "generate": lambda kms: kms.generate(CONTEXT),
    "check": lambda kms: kms.check(),
    "describe": lambda kms: kms.describe(),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


def guarded(adapter: Scripted, deadline_s: float = 5.0) -> GuardedKms:
    """The guard around a scripted adapter."""
    return GuardedKms(adapter=adapter, uri=URI, deadline_s=deadline_s)


WRONG_WRAPS = [
    None,
    b"blob",
    (KEY, WRAP),
    Wrap(key_version="1", blob=b""),
    Wrap(key_version="1", blob=bytes(WRAP_BYTES_MAX + 1)),
    Wrap(key_version="1", blob="text"),  # type: ignore[arg-type]  # the wrong type is the point
    Wrap(key_version=1, blob=b"blob"),  # type: ignore[arg-type]  # the wrong type is the point
    Wrap(key_version="v" * 257, blob=b"blob"),
    Wrap(key_version="1", blob=b"header" + KEY + b"tail"),
]
WRONG_KEYS = [None, b"", KEY[:-1], KEY + b"\0", "k" * 32, bytearray(KEY)]


@pytest.mark.parametrize("reply", WRONG_WRAPS)
async def test_a_wrong_wrap_is_corrupt(reply: object) -> None:
    """A blob that is empty, too large, of another type, or holds the key, never gets to the caller."""
    with pytest.raises(Corrupt) as caught:
        await guarded(Scripted(reply)).wrap(KEY, CONTEXT)
    assert caught.value.kms_key == URI


@pytest.mark.parametrize("reply", WRONG_KEYS)
async def test_a_wrong_key_is_corrupt(reply: object) -> None:
    """What is not 32 bytes never gets to the caller as a key."""
    with pytest.raises(Corrupt) as caught:
        await guarded(Scripted(reply)).unwrap(WRAP, CONTEXT)
    assert caught.value.kms_key == URI


@pytest.mark.parametrize(
    "reply",
    [None, KEY, (KEY,), (KEY, WRAP, WRAP), (KEY[:-1], WRAP), (KEY, None), (KEY, Wrap(key_version="", blob=KEY))],
)
async def test_a_wrong_generation_is_corrupt(reply: object) -> None:
    """A generated key and its wrap are both checked."""
    with pytest.raises(Corrupt):
        await guarded(Scripted(reply)).generate(CONTEXT)


async def test_a_wrong_description_is_corrupt() -> None:
    """A description is a Description."""
    with pytest.raises(Corrupt):
        await guarded(Scripted({"provider": "x"})).describe()


async def test_right_replies_pass_unchanged() -> None:
    """The guard changes no reply that is in bounds, the largest included."""
    most = Wrap(key_version="v" * 256, blob=bytes(WRAP_BYTES_MAX))
    description = Description(provider="x", state="enabled", key_version="1", hsm=True)
    assert await guarded(Scripted(most)).wrap(KEY, CONTEXT) is most
    assert await guarded(Scripted(KEY)).unwrap(most, CONTEXT) == KEY
    assert await guarded(Scripted((KEY, WRAP))).generate(CONTEXT) == (KEY, WRAP)
    assert await guarded(Scripted(description)).describe() is description
    await guarded(Scripted()).check()


@pytest.mark.parametrize("key", [b"", KEY[:-1], KEY + b"\0", bytearray(KEY), "k" * 32])
async def test_a_wrong_key_is_not_handed_to_the_adapter(key: Any) -> None:
    """A key of another size or type is BadKey before the adapter sees it."""
    adapter = Scripted(WRAP)
    with pytest.raises(BadKey):
        await guarded(adapter).wrap(key, CONTEXT)
    assert adapter.calls == 0


@pytest.mark.parametrize("blob", [b"", bytes(WRAP_BYTES_MAX + 1), "text"])
async def test_a_wrong_blob_is_not_handed_to_the_adapter(blob: Any) -> None:
    """A blob out of bounds is Corrupt before the adapter sees it."""
    adapter = Scripted(KEY)
    with pytest.raises(Corrupt):
        await guarded(adapter).unwrap(Wrap(key_version="1", blob=blob), CONTEXT)
    assert adapter.calls == 0


@pytest.mark.parametrize("context", [{"n": "v" * 2048}, {"n": 1}, {1: "v"}, {"n": b"v"}, {"n": "\ud800"}])
async def test_a_wrong_context_is_not_handed_to_the_adapter(context: Any) -> None:
    """A context out of bounds is BadKey where it would wrap, Corrupt where it would unwrap."""
    adapter = Scripted(WRAP)
    with pytest.raises(BadKey):
        await guarded(adapter).wrap(KEY, context)
    with pytest.raises(BadKey):
        await guarded(adapter).generate(context)
    with pytest.raises(Corrupt):
        await guarded(adapter).unwrap(WRAP, context)
    assert adapter.calls == 0


async def test_the_adapter_gets_a_copy_of_the_context() -> None:
    """Nobody changes a context between its check and its use."""
    adapter = Scripted(WRAP)
    context = dict(CONTEXT)
    await guarded(adapter).wrap(KEY, context)
    context["app"] = "other"
    assert adapter.context == CONTEXT


@every_call
async def test_silence_is_unavailable(call: Callable[[Kms], Awaitable[object]]) -> None:
    """A call that takes longer than its deadline is given up."""
    adapter = Scripted(act=asyncio.Event().wait)
    with pytest.raises(Unavailable, match=r"0\.01 s") as caught:
        await call(guarded(adapter, deadline_s=0.01))
    assert caught.value.kms_key == URI


@every_call
async def test_a_timeout_of_the_adapter_itself_is_unavailable(call: Callable[[Kms], Awaitable[object]]) -> None:
    """An adapter that lets its SDK's timeout through was not answered either."""
    with pytest.raises(Unavailable):
        await call(guarded(Scripted(TimeoutError())))


@every_call
@pytest.mark.parametrize(
    "error", [RuntimeError("canary"), OSError("canary"), KeyError(KEY), ExceptionGroup("g", [ValueError()])]
)
async def test_an_unknown_error_fails_closed(call: Callable[[Kms], Awaitable[object]], error: Exception) -> None:
    """What nobody understands is Denied; it is chained, and its text, which may hold anything, is not repeated."""
    with pytest.raises(Denied) as caught:
        await call(guarded(Scripted(error)))
    assert caught.value.__cause__ is error
    assert caught.value.kms_key == URI
    assert "canary" not in str(caught.value)
    assert repr(KEY) not in str(caught.value)


@every_call
@pytest.mark.parametrize("kind", [Unavailable, Denied, Disabled, Corrupt, BadKey])
async def test_typed_errors_keep_their_type(call: Callable[[Kms], Awaitable[object]], kind: type[KmsError]) -> None:
    """An adapter's own answer is not reinterpreted, and gets the key's name if it had none."""
    with pytest.raises(kind, match="as told") as caught:
        await call(guarded(Scripted(kind("as told"))))
    assert type(caught.value) is kind
    assert caught.value.kms_key == URI


async def test_cancelling_the_caller_passes_through() -> None:
    """A cancelled call ends as cancelled, not as an error of the KMS."""
    started = asyncio.Event()

    async def act() -> None:
        started.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(guarded(Scripted(act=act)).unwrap(WRAP, CONTEXT))
        await started.wait()
        task.cancel()
    assert task.cancelled()


async def test_a_cancellation_that_nobody_asked_for_is_denied() -> None:
    """An adapter whose inner call was cancelled does not silently end the caller's task."""
    with pytest.raises(Denied):
        await guarded(Scripted(asyncio.CancelledError())).unwrap(WRAP, CONTEXT)


def test_the_guard_shows_the_uri_and_no_more() -> None:
    """Its repr names the key."""
    assert repr(guarded(Scripted())) == "GuardedKms('scripted:key')"
