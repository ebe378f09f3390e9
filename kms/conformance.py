"""The laws of the KMS port, to be run against every adapter; public, for adapters elsewhere too.

Subclass `KmsLaws` in a test module, name the adapter's URI scheme in `scheme`, and give the four fixtures that it
names. The laws run under pytest with pytest-asyncio in auto mode, and need nothing else of it. Run them on the bare
adapter, so that it is not the guard which keeps them. What is particular to one KMS (files, policies, quotas) does
not live here.

A law that is broken raises LawBroken, which says what happened.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from kms.errors import BadKey, Corrupt, Denied, KmsError
from kms.port import CONTEXT_BYTES_MAX, KEY_BYTES, WRAP_BYTES_MAX, Caller, Description, Kms, Wrap

KEY = bytes(range(100, 100 + KEY_BYTES))
CONTEXT: Mapping[str, str] = {"app": "tokenbroker", "keyring": "laws", "data_key": "dk-1", "purpose": "data-key"}
"""What the laws wrap under; a key with a policy must serve it."""
STRANGER = Caller(worker="stranger", groups=("strangers",))
"""A worker that no key allows."""

T = TypeVar("T")


class LawBroken(AssertionError):
    """An adapter broke a law of the KMS port."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deciding:
    """A key that decides per worker: it serves `allowed` under CONTEXT, and no other worker."""

    kms: Kms
    allowed: Caller


class KmsLaws:
    """The laws. Fixtures that a subclass gives, each opened anew for a test:

    kms: the key under test, which decides for no worker.
    same_kms: the same key, opened a second time, as another replica would.
    other_kms: another key of the same adapter.
    deciding: a `Deciding`, or None where the adapter never decides per worker.
    """

    scheme: ClassVar[str]
    """The URI scheme whose adapter is enrolled here."""
    deadline_s: ClassVar[float] = 30.0
    """How long a step of a law may take before the law counts as broken."""
    flips_max: ClassVar[int] = 128
    """In how many places of a blob a bit is flipped, spread evenly; fewer where each call goes over a network."""

    async def test_what_was_wrapped_opens_again(self, kms: Kms) -> None:
        """Unwrapping gives back the 32 bytes, whatever text the context holds, in whatever order."""
        for context in (CONTEXT, {}, {"ключ": "значение \U0001f511"}, {"name": ""}, {"a": "1", "b": "2"}):
            wrap = await self._answer(kms.wrap(KEY, context))
            turned = dict(reversed(list(context.items())))
            require(await self._answer(kms.unwrap(wrap, turned)) == KEY, f"another key came back under {context}")

    async def test_another_handle_opens_it(self, kms: Kms, same_kms: Kms) -> None:
        """What one replica wrapped, another one opens."""
        wrap = await self._answer(kms.wrap(KEY, CONTEXT))
        require(await self._answer(same_kms.unwrap(wrap, CONTEXT)) == KEY, "another handle gave another key")

    async def test_another_context_does_not_open_it(self, kms: Kms) -> None:
        """A context that differs in any name, value or boundary is Corrupt."""
        wrap = await self._answer(kms.wrap(KEY, CONTEXT))
        for other in _other_contexts():
            await self._refused(kms.unwrap(wrap, other), Corrupt, of=f"unwrapping under {other}")

    async def test_a_changed_blob_does_not_open(self, kms: Kms) -> None:
        """A blob with one flipped bit is Corrupt."""
        wrap = await self._answer(kms.wrap(KEY, CONTEXT))
        size = len(wrap.blob)
        for place in sorted({index * size // self.flips_max for index in range(self.flips_max)}):
            blob = bytearray(wrap.blob)
            blob[place] ^= 1 << (place % 8)
            changed = Wrap(key_version=wrap.key_version, blob=bytes(blob))
            await self._refused(kms.unwrap(changed, CONTEXT), Corrupt, of=f"a blob changed at byte {place}")

    async def test_a_blob_of_another_size_does_not_open(self, kms: Kms) -> None:
        """A blob that is cut, lengthened, empty or over the bound is Corrupt."""
        wrap = await self._answer(kms.wrap(KEY, CONTEXT))
        for blob in (
            b"",
            wrap.blob[:1],
            wrap.blob[:-1],
            wrap.blob[1:],
            wrap.blob + b"\0",
            wrap.blob + bytes(WRAP_BYTES_MAX),
        ):
            changed = Wrap(key_version=wrap.key_version, blob=blob)
            await self._refused(kms.unwrap(changed, CONTEXT), Corrupt, of=f"a blob of {len(blob)} bytes")

    async def test_another_key_does_not_open_it(self, kms: Kms, other_kms: Kms) -> None:
        """A blob of another key is Corrupt, or Denied where the KMS can tell whose it is."""
        wrap = await self._answer(other_kms.wrap(KEY, CONTEXT))
        await self._refused(kms.unwrap(wrap, CONTEXT), Corrupt, Denied, of="another key's blob")

    async def test_only_keys_of_32_bytes_are_wrapped(self, kms: Kms) -> None:
        """Anything but 32 bytes is BadKey."""
        for key in (b"", KEY[:-1], KEY + b"\0", KEY[:16], KEY * 2):
            await self._refused(kms.wrap(key, CONTEXT), BadKey, of=f"wrapping {len(key)} bytes")

    async def test_a_context_over_its_bound_is_refused(self, kms: Kms) -> None:
        """2048 bytes of context are served; one more is BadKey for wrap and generate, Corrupt for unwrap."""
        most = {"name": "é" * ((CONTEXT_BYTES_MAX - 4) // 2)}
        over = {"names": most["name"]}
        wrap = await self._answer(kms.wrap(KEY, most))
        require(await self._answer(kms.unwrap(wrap, most)) == KEY, "a context of the largest size does not open")
        await self._refused(kms.wrap(KEY, over), BadKey, of="wrapping under too long a context")
        await self._refused(kms.generate(over), BadKey, of="generating under too long a context")
        await self._refused(kms.unwrap(wrap, over), Corrupt, of="unwrapping under too long a context")

    async def test_wraps_stay_in_bounds_and_hide_the_key(self, kms: Kms) -> None:
        """A blob has 1 to 4096 bytes, and the key is not in it."""
        wrap = await self._answer(kms.wrap(KEY, CONTEXT))
        require(1 <= len(wrap.blob) <= WRAP_BYTES_MAX, f"a blob has {len(wrap.blob)} bytes")
        require(KEY not in wrap.blob, "the blob holds the key in the clear")

    async def test_two_wraps_of_one_key_differ(self, kms: Kms) -> None:
        """Wrapping is randomised: equal keys cannot be told from their blobs."""
        one = await self._answer(kms.wrap(KEY, CONTEXT))
        two = await self._answer(kms.wrap(KEY, CONTEXT))
        require(one.blob != two.blob, "two wraps of one key are equal")

    async def test_generated_keys_are_fresh_and_open(self, kms: Kms) -> None:
        """`generate` gives 32 new bytes and a wrap that opens to them, under its context alone."""
        seen = set()
        for _ in range(4):
            key, wrap = await self._answer(kms.generate(CONTEXT))
            require(len(key) == KEY_BYTES, f"a generated key has {len(key)} bytes")
            require(await self._answer(kms.unwrap(wrap, CONTEXT)) == key, "a generated key does not open to itself")
            seen.add(key)
        require(len(seen) == 4, "a generated key came twice")
        await self._refused(kms.unwrap(wrap, {**CONTEXT, "data_key": "dk-2"}), Corrupt, of="a generated key")

    async def test_concurrent_calls_do_not_mix(self, kms: Kms) -> None:
        """Calls that run together each get their own answer."""
        keys = [bytes([number]) * KEY_BYTES for number in range(32)]
        async with asyncio.TaskGroup() as group:
            trips = [group.create_task(self._round_trip(kms, key)) for key in keys]
        require([trip.result() for trip in trips] == keys, "concurrent calls got each other's keys")

    async def test_a_key_that_cannot_decide_denies_every_caller(self, kms: Kms) -> None:
        """With a caller, a key that has no way to decide per worker is Denied: it must not pretend that it did."""
        wrap = await self._answer(kms.wrap(KEY, CONTEXT))
        await self._refused(kms.unwrap(wrap, CONTEXT, STRANGER), Denied, of="unwrapping for a worker, undecided")

    async def test_a_deciding_key_serves_whom_it_allows(self, deciding: Deciding | None) -> None:
        """A key that decides per worker opens for the worker that it allows."""
        if deciding is not None:
            wrap = await self._answer(deciding.kms.wrap(KEY, CONTEXT))
            key = await self._answer(deciding.kms.unwrap(wrap, CONTEXT, deciding.allowed))
            require(key == KEY, "an allowed worker got another key")

    async def test_a_deciding_key_denies_strangers(self, deciding: Deciding | None) -> None:
        """A key that decides per worker is Denied for any other, even right after it served an allowed one."""
        if deciding is not None:
            wrap = await self._answer(deciding.kms.wrap(KEY, CONTEXT))
            await self._answer(deciding.kms.unwrap(wrap, CONTEXT, deciding.allowed))
            await self._refused(deciding.kms.unwrap(wrap, CONTEXT, STRANGER), Denied, of="unwrapping for a stranger")

    async def test_check_passes_for_a_usable_key(self, kms: Kms) -> None:
        """`check` returns for a key that can wrap and unwrap."""
        await self._answer(kms.check())

    async def test_describe_speaks_to_people(self, kms: Kms) -> None:
        """`describe` names provider and state, and each warning is one line of text."""
        description: object = await self._answer(kms.describe())
        if not isinstance(description, Description):
            raise LawBroken("describe gave something else than a Description")
        require(bool(description.provider and description.state), "describe leaves provider or state empty")
        lines = all(warning and len(warning.splitlines()) == 1 for warning in description.warnings)
        require(lines, "a warning is empty or has several lines")

    async def test_errors_name_the_key_and_nothing_secret(self, kms: Kms) -> None:
        """Errors carry the key URI, and neither the key nor the blob."""
        wrap = await self._answer(kms.wrap(KEY, CONTEXT))
        for error in (
            await self._refused(kms.unwrap(wrap, {}), KmsError, of="another context"),
            await self._refused(kms.wrap(KEY + b"\0", CONTEXT), KmsError, of="a key of 33 bytes"),
            await self._refused(kms.unwrap(wrap, CONTEXT, STRANGER), KmsError, of="a stranger"),
        ):
            require(error.kms_key == kms.uri, f"an error names the key {error.kms_key!r} and not {kms.uri!r}")
            text = f"{error!s} {error!r}"
            require(not any(spelt in text for spelt in _spellings(KEY, wrap.blob)), "an error shows key material")

    async def test_a_cancelled_call_harms_no_other(self, kms: Kms) -> None:
        """Cancelling a call, at whatever point, cancels it, and leaves the key usable."""
        wrap = await self._answer(kms.wrap(KEY, CONTEXT))
        for steps in range(8):
            try:
                async with asyncio.TaskGroup() as group:
                    task = group.create_task(kms.unwrap(wrap, CONTEXT))
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    requested = task.cancel()
            except ExceptionGroup as errors:
                raise LawBroken("a call turned its cancellation into another error") from errors
            require(task.cancelled() == requested, "a call swallowed its cancellation")
            require(await self._round_trip(kms, KEY) == KEY, "a cancelled call broke a later one")

    async def _round_trip(self, kms: Kms, key: bytes) -> bytes:
        return await self._answer(kms.unwrap(await self._answer(kms.wrap(key, CONTEXT)), CONTEXT))

    async def _answer(self, call: Awaitable[T]) -> T:
        """What `call` gives. LawBroken: it raised an error of `kms.errors` instead."""
        try:
            return await self._in_time(call)
        except KmsError as error:
            raise LawBroken(f"refused, and it must be answered: {type(error).__name__}: {error}") from error

    async def _in_time(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self.deadline_s):
                return await call
        except TimeoutError as error:
            raise LawBroken(f"no answer within {self.deadline_s:g} s") from error

    async def _refused(self, call: Awaitable[object], *expected: type[KmsError], of: str) -> KmsError:
        """The error that `call` must raise, one of `expected`. LawBroken: it answered, or raised something else."""
        try:
            await self._in_time(call)
        except expected as error:
            return error
        except Exception as error:
            raise LawBroken(f"{of} raised {type(error).__name__}, not {' or '.join(_names(expected))}") from error
        raise LawBroken(f"{of} was answered; it must raise {' or '.join(_names(expected))}")


def require(holds: bool, otherwise: str) -> None:
    """Return if `holds`; raise LawBroken, saying `otherwise`. Works in an optimised interpreter as well."""
    if not holds:
        raise LawBroken(otherwise)


def _names(kinds: tuple[type[KmsError], ...]) -> list[str]:
    return [kind.__name__ for kind in kinds]


def _spellings(*secrets: bytes) -> list[str]:
    """How these bytes could turn up in a text."""
    return [text for each in secrets for text in (each.hex(), repr(each)[2:-1], b64encode(each).decode().rstrip("="))]


def _other_contexts() -> list[dict[str, str]]:
    """Contexts that differ from CONTEXT a little; the last ones only in where one text ends and the next begins."""
    less = {name: value for name, value in CONTEXT.items() if name != "data_key"}
    return [
        {},
        less,
        {**CONTEXT, "more": ""},
        {**CONTEXT, "data_key": "dk-2"},
        {**CONTEXT, "data_key": "DK-1"},
        {**less, "data-key": "dk-1"},
        {**CONTEXT, "app": CONTEXT["keyring"], "keyring": CONTEXT["app"]},
        {**less, "data_key": "dk-1\0"},
        {**less, "data_keyd": "k-1"},
        {**less, "data_ke": "ydk-1"},
    ]
