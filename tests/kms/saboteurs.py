"""Adapters that each break one law of the KMS port, made from a real local key. Named by the law they break."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Mapping

from kms.errors import BadKey, Corrupt, Denied, KmsError, Unavailable
from kms.port import WRAP_BYTES_MAX, Caller, Description, Kms, Wrap


class Saboteur:
    """Passes everything on; a subclass breaks one thing. `other` is another key, for those that mix keys up."""

    def __init__(self, *, real: Kms, other: Kms) -> None:
        self.real = real
        self.other = other
        self.memory: dict[object, bytes] = {}

    @property
    def uri(self) -> str:
        return self.real.uri

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        return await self.real.wrap(key, context)

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        return await self.real.unwrap(wrap, context, caller)

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        return await self.real.generate(context)

    async def check(self) -> None:
        await self.real.check()

    async def describe(self) -> Description:
        return await self.real.describe()


class KeepsOrder(Saboteur):
    """Binds the order in which the context was written."""

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        return await self.real.wrap(key, {**context, "order": ",".join(context)})

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        return await self.real.unwrap(wrap, {**context, "order": ",".join(context)}, caller)


class BindsTheHandle(Saboteur):
    """Opens only what this very handle wrapped."""

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        return await self.real.wrap(key, {**context, "handle": str(id(self))})

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        return await self.real.unwrap(wrap, {**context, "handle": str(id(self))}, caller)


class JoinsTheContext(Saboteur):
    """Binds names and values run together, so that their boundaries do not count."""

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        return await self.real.wrap(key, {"all": self.joined(context)})

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        return await self.real.unwrap(wrap, {"all": self.joined(context)}, caller)

    @staticmethod
    def joined(context: Mapping[str, str]) -> str:
        return "".join(name + context[name] for name in sorted(context))


class IgnoresOneByte(Saboteur):
    """Puts a byte before the blob that it never looks at."""

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        wrap = await self.real.wrap(key, context)
        return dataclasses.replace(wrap, blob=b"x" + wrap.blob)

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        return await self.real.unwrap(dataclasses.replace(wrap, blob=wrap.blob[1:]), context, caller)


class IgnoresWhatFollows(Saboteur):
    """Opens a blob with more behind it."""

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        return await self.real.unwrap(dataclasses.replace(wrap, blob=wrap.blob[:85]), context, caller)


class OpensAnyKeysBlobs(Saboteur):
    """Opens what another key wrapped."""

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        try:
            return await self.real.unwrap(wrap, context, caller)
        except Corrupt:
            return await self.other.unwrap(wrap, context, caller)


class PadsKeys(Saboteur):
    """Wraps keys of any size."""

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        return await self.real.wrap(key[:32].ljust(32, b"\0"), context)


class CutsTheContext(Saboteur):
    """Drops from the context what is over the bound, instead of refusing it."""

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        return await self.real.wrap(key, self.cut(context))

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        return await self.real.unwrap(wrap, self.cut(context), caller)

    @staticmethod
    def cut(context: Mapping[str, str]) -> Mapping[str, str]:
        return {} if sum(len((name + value).encode()) for name, value in context.items()) > 2048 else context


class ShowsTheKey(Saboteur):
    """Puts the key behind its own wrap."""

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        wrap = await self.real.wrap(key, context)
        return dataclasses.replace(wrap, blob=wrap.blob + key)


class SwellsBlobs(Saboteur):
    """Makes blobs over the bound."""

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        wrap = await self.real.wrap(key, context)
        return dataclasses.replace(wrap, blob=wrap.blob + bytes(WRAP_BYTES_MAX))


class IsDeterministic(Saboteur):
    """Gives the first wrap of a key again."""

    def __init__(self, *, real: Kms, other: Kms) -> None:
        super().__init__(real=real, other=other)
        self.wraps: dict[bytes, Wrap] = {}

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        if key not in self.wraps:
            self.wraps[key] = await self.real.wrap(key, context)
        return self.wraps[key]


class GeneratesOneKey(Saboteur):
    """Generates the same key each time."""

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        return bytes(32), await self.real.wrap(bytes(32), context)


class GeneratesUnboundKeys(Saboteur):
    """Generates keys under no context, and opens them under any."""

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        return await self.real.generate({})

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        return await self.real.unwrap(wrap, {}, caller)


class MixesConcurrentCalls(Saboteur):
    """Keeps the blob that it is asked about in one place for all calls."""

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        self.asked = wrap
        await asyncio.sleep(0)
        return await self.real.unwrap(self.asked, context, caller)


class IgnoresCallers(Saboteur):
    """Answers for every worker as for none."""

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        return await self.real.unwrap(wrap, context)


class DeniesEveryCaller(Saboteur):
    """Decides per worker, always against."""

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        if caller is not None:
            raise Denied(kms_key=self.uri)
        return await self.real.unwrap(wrap, context)


class CachesAcrossCallers(Saboteur):
    """Remembers what it opened for one worker, and gives it to the next."""

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        if wrap.blob not in self.memory:
            self.memory[wrap.blob] = await self.real.unwrap(wrap, context, caller)
        return self.memory[wrap.blob]


class FailsItsCheck(Saboteur):
    """Says that a usable key is not."""

    async def check(self) -> None:
        raise Unavailable(kms_key=self.uri)


class DescribesInParagraphs(Saboteur):
    """Warns in several lines."""

    async def describe(self) -> Description:
        return dataclasses.replace(await self.real.describe(), warnings=("one line\nand another",))


class HidesTheKeysName(Saboteur):
    """Raises errors that do not say which key they are about."""

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        try:
            return await self.real.unwrap(wrap, context, caller)
        except KmsError as error:
            raise type(error)() from error


class TellsTheKey(Saboteur):
    """Quotes in its error what it was asked to wrap."""

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        if len(key) != 32:
            raise BadKey(f"cannot wrap {key.hex()}", kms_key=self.uri)
        return await self.real.wrap(key, context)


class SwallowsCancellation(Saboteur):
    """Goes on when it is cancelled."""

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return await self.real.unwrap(wrap, context, caller)


class TranslatesCancellation(Saboteur):
    """Takes its own cancellation for an outage."""

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise Unavailable(kms_key=self.uri) from None
        return await self.real.unwrap(wrap, context, caller)


class KeepsItsLock(Saboteur):
    """Does not give its lock back when it is cancelled."""

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        if not hasattr(self, "lock"):
            self.lock = asyncio.Lock()
        await self.lock.acquire()
        await asyncio.sleep(0)
        self.lock.release()
        return await self.real.unwrap(wrap, context, caller)


LAW_BREAKERS: dict[str, tuple[type[Saboteur], ...]] = {
    "test_what_was_wrapped_opens_again": (KeepsOrder,),
    "test_another_handle_opens_it": (BindsTheHandle,),
    "test_another_context_does_not_open_it": (JoinsTheContext,),
    "test_a_changed_blob_does_not_open": (IgnoresOneByte,),
    "test_a_blob_of_another_size_does_not_open": (IgnoresWhatFollows,),
    "test_another_key_does_not_open_it": (OpensAnyKeysBlobs,),
    "test_only_keys_of_32_bytes_are_wrapped": (PadsKeys,),
    "test_a_context_over_its_bound_is_refused": (CutsTheContext,),
    "test_wraps_stay_in_bounds_and_hide_the_key": (ShowsTheKey, SwellsBlobs),
    "test_two_wraps_of_one_key_differ": (IsDeterministic,),
    "test_generated_keys_are_fresh_and_open": (GeneratesOneKey, GeneratesUnboundKeys),
    "test_concurrent_calls_do_not_mix": (MixesConcurrentCalls,),
    "test_a_key_that_cannot_decide_denies_every_caller": (IgnoresCallers,),
    "test_a_deciding_key_serves_whom_it_allows": (DeniesEveryCaller,),
    "test_a_deciding_key_denies_strangers": (IgnoresCallers, CachesAcrossCallers),
    "test_check_passes_for_a_usable_key": (FailsItsCheck,),
    "test_describe_speaks_to_people": (DescribesInParagraphs,),
    "test_errors_name_the_key_and_nothing_secret": (HidesTheKeysName, TellsTheKey),
    "test_a_cancelled_call_harms_no_other": (SwallowsCancellation, TranslatesCancellation, KeepsItsLock),
}
"""For each law, adapters that it must catch."""
