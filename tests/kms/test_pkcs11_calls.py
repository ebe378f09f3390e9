"""Calls into a PKCS#11 library block: they cost the event loop nothing, and one that hangs costs a bounded lot."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import Any

import pytest

from kms.catalog import open_kms
from kms.errors import Unavailable
from kms.pkcs11 import adapter, open_pkcs11
from kms.pkcs11.calls import CALLS_MAX, CallThread

KEY = bytes(range(32))
HANGING_PROCESS = """
import asyncio, sys
from kms.errors import Unavailable
from kms.pkcs11 import adapter, open_pkcs11
from kms.guard import GuardedKms

async def main(uri):
    adapter.CLOSE_S = 0.05
    async with open_pkcs11(uri) as kms:
        print("open", flush=True)
        sys.stdin.readline()
        try:
            await GuardedKms(adapter=kms, uri=uri, deadline_s=0.2).check()
        except Unavailable:
            print("unavailable", flush=True)

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
def token(softhsm: Any) -> Any:
    """A token with an RSA key pair."""
    made = softhsm.token()
    softhsm.rsa(made, "rsa")
    return made


async def turns(count: int) -> None:
    """Let the event loop go round `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_loop_goes_round_while_the_library_hangs(softhsm: Any, token: Any) -> None:
    """A call that the library does not return from holds up nobody else, and is answered when the library is back."""
    async with open_pkcs11(softhsm.uri(token, "rsa")) as kms:
        wrap = await kms.wrap(KEY, {})
        async with asyncio.TaskGroup() as group:
            with softhsm.hanging(token):
                call = group.create_task(kms.unwrap(wrap, {}))
                await turns(1000)
                assert not call.done()
        assert call.result() == KEY


async def test_a_hanging_call_ends_at_its_callers_deadline(softhsm: Any, token: Any) -> None:
    """The guard's deadline is Unavailable though the library still hangs; the key serves again once it is back."""
    async with open_kms(softhsm.uri(token, "rsa"), deadline_s=0.2) as kms:
        with softhsm.hanging(token), pytest.raises(Unavailable, match="no answer within"):
            await kms.check()
    async with open_kms(softhsm.uri(token, "rsa")) as kms:
        await kms.check()


async def test_what_waits_for_a_hanging_library_is_bounded(softhsm: Any, token: Any) -> None:
    """One call hangs, a bounded number waits, and one more is Unavailable at once; all that waited are answered."""
    async with open_pkcs11(softhsm.uri(token, "rsa")) as kms:
        wrap = await kms.wrap(KEY, {})

        async def outcome() -> bytes | str:
            try:
                return await kms.unwrap(wrap, {})
            except Unavailable as error:
                return str(error)

        async with asyncio.TaskGroup() as group:
            with softhsm.hanging(token):
                calls = [group.create_task(outcome()) for _ in range(CALLS_MAX + 2)]
                await turns(10)
                refused = [call.result() for call in calls if call.done()]
        # One call hangs; it may or may not have left the line before the last two came.
        assert len(refused) in (1, 2)
        assert all("wait for its library already" in str(each) for each in refused)
        assert [call.result() for call in calls].count(KEY) == len(calls) - len(refused)


async def test_closing_does_not_wait_for_a_hanging_library(
    softhsm: Any, token: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing ends while the library hangs; what it had to do is done when the library is back."""
    monkeypatch.setattr(adapter, "CLOSE_S", 0.05)
    async with open_pkcs11(softhsm.uri(token, "rsa")) as kms:
        wrap = await kms.wrap(KEY, {})
        with softhsm.hanging(token):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(kms.check(), timeout=0.05)
            async with asyncio.timeout(30):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05), open_pkcs11(softhsm.uri(token, "rsa")):
                        pytest.fail("opened, while the library hangs")
        assert await kms.unwrap(wrap, {}) == KEY


def test_a_process_ends_though_the_library_hangs(softhsm: Any, token: Any) -> None:
    """A broker whose HSM never answers can still be stopped: nothing waits for the thread in the library."""
    command = [sys.executable, "-c", HANGING_PROCESS, softhsm.uri(token, "rsa")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with softhsm.hanging(token):
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "unavailable\n"
            assert process.wait(60) == 0


async def test_a_thousand_calls_at_a_time_do_not_mix(softhsm: Any, token: Any) -> None:
    """Calls of two handles on one library, many at a time, each get their own answer."""
    uri = softhsm.uri(token, "rsa")
    async with open_pkcs11(uri) as one, open_pkcs11(uri) as two:
        keys = [bytes([number]) * 32 for number in range(CALLS_MAX // 2)]
        for _ in range(8):
            wraps = await asyncio.gather(*(kms.wrap(key, {}) for key in keys for kms in (one, two)))
            opened = await asyncio.gather(*((one, two)[index % 2].unwrap(wrap, {}) for index, wrap in enumerate(wraps)))
            assert opened == [key for key in keys for _ in (one, two)]


async def test_a_thread_that_is_stuck_is_asked_for_nothing_more() -> None:
    """From stuck_s on, calls are Unavailable at once; after the stuck one came back, they are made again."""
    thread, going, released = CallThread(name="stuck", stuck_s=0), threading.Event(), threading.Event()

    def hang() -> str:
        going.set()
        assert released.wait(60)
        return "back"

    async with asyncio.TaskGroup() as group:
        hanging = group.create_task(thread.run(hang))
        assert await asyncio.to_thread(going.wait, 60)
        with pytest.raises(Unavailable, match="has not come back"):
            await thread.run(lambda: "never")
        released.set()
    assert hanging.result() == "back"
    await thread.finish(lambda: None, wait_s=60)
    assert await thread.run(lambda: "again") == "again"


async def test_a_call_that_is_cancelled_in_line_is_never_made() -> None:
    """Whoever gives up before his turn has asked for nothing; those behind him are served."""
    thread, going, released = CallThread(name="line"), threading.Event(), threading.Event()
    made: list[str] = []

    def hang() -> None:
        going.set()
        assert released.wait(60)

    async with asyncio.TaskGroup() as group:
        group.create_task(thread.run(hang))
        assert await asyncio.to_thread(going.wait, 60)
        given_up = group.create_task(thread.run(lambda: made.append("given up")))
        behind = group.create_task(thread.run(lambda: made.append("behind")))
        await turns(2)
        given_up.cancel()
        await turns(2)
        released.set()
        await behind
    assert made == ["behind"]


async def test_finishing_is_done_even_if_nobody_waits_for_it() -> None:
    """A last call whose wait is over is made all the same, after those before it."""
    thread, released, finished = CallThread(name="finish"), threading.Event(), threading.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(thread.run(lambda: released.wait(60)))
        await turns(2)
        await thread.finish(finished.set, wait_s=0)
        assert not finished.is_set()
        released.set()
        assert await asyncio.to_thread(finished.wait, 60)


async def test_an_error_of_a_call_is_its_callers() -> None:
    """What a call raises goes to whoever asked for it, and the thread lives on."""
    thread = CallThread(name="errors")
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert await thread.run(lambda: 1) == 1
