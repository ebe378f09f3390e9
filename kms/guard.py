"""A Kms around an adapter that the core does not trust: every reply is checked, every call has a deadline.

Caching, retries, back-off and circuit breaking do not live here: they need to know what the key is for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from kms.bounds import check_blob, check_context, check_key
from kms.errors import BadKey, Corrupt, Denied, KmsError, Unavailable
from kms.naming import naming
from kms.port import KEY_BYTES, Caller, Description, Kms, Wrap, wraps_only

CALL_DEADLINE_S = 5.0
"""How long one call of an adapter may take, unless the guard is told otherwise."""
KEY_VERSION_CHARS_MAX = 256
"""Longest key version that is believed; it is stored beside every wrapped key."""

T = TypeVar("T")


async def ask(call: Callable[[], Awaitable[T]], *, uri: str, deadline_s: float) -> T:
    """What `call` answers within deadline_s, or an error of `kms.errors` that names `uri`.

    A timeout, ours or the adapter's own, is Unavailable. Whatever else is not a KmsError is Denied: an answer that
    nobody understands must never count as "try later", which would keep cached keys in use. Its cause is chained,
    and its text is left out of the message, for nobody knows what it holds. Cancelling the caller passes through; a
    CancelledError that nobody asked of the caller is the adapter's own failure, and Denied as well.
    """
    try:
        async with asyncio.timeout(deadline_s):
            return await call()
    except KmsError:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Passed on, it would end the caller's task in silence, as if somebody had stopped it.
        raise Denied("its adapter cancelled its own call", kms_key=uri) from error
    except TimeoutError as error:
        raise Unavailable(f"no answer within {deadline_s:g} s; the same call may succeed later", kms_key=uri) from error
    except Exception as error:
        kind = type(error).__name__
        raise Denied(f"its adapter failed with {kind}, which it should have translated", kms_key=uri) from error


class GuardedKms:
    """The same Kms, distrusted. Bounds are enforced on the way in and on the way out.

    Raises what the port allows. A wrong reply (a key that has not 32 bytes, an empty or oversized blob, a blob with
    the key in it, an answer of another type) is Corrupt.
    """

    def __init__(self, *, adapter: Kms, uri: str, deadline_s: float = CALL_DEADLINE_S) -> None:
        self._adapter = adapter
        self._uri = uri
        self._deadline_s = deadline_s

    def __repr__(self) -> str:
        return f"GuardedKms({self._uri!r})"

    @property
    def uri(self) -> str:
        """The key URI as configured; what the adapter says of itself does not matter here."""
        return self._uri

    @property
    def wraps_only(self) -> bool:
        """Whether the adapter says that it never opens here (`kms.port.WrapsOnly`)."""
        return wraps_only(self._adapter)

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        """As the port says; a key of another size or a context over its bound is BadKey, and nothing is asked."""
        with naming(self._uri):
            check_key(key)
            asked = check_context(context, or_raise=BadKey)
            wrap = await self._ask(lambda: self._adapter.wrap(key, asked))
            return _checked_wrap(wrap, key)

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        """As the port says; a blob or context over its bound is Corrupt, and nothing is asked."""
        with naming(self._uri):
            check_blob(wrap.blob)
            asked = check_context(context, or_raise=Corrupt)
            return _checked_key(await self._ask(lambda: self._adapter.unwrap(wrap, asked, caller)))

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        """As the port says; a context over its bound is BadKey, and nothing is asked."""
        with naming(self._uri):
            asked = check_context(context, or_raise=BadKey)
            reply: object = await self._ask(lambda: self._adapter.generate(asked))
            if not isinstance(reply, tuple) or len(reply) != 2:
                raise Corrupt("its adapter generated something that is not a key and its wrap")
            key = _checked_key(reply[0])
            return key, _checked_wrap(reply[1], key)

    async def check(self) -> None:
        """As the port says."""
        with naming(self._uri):
            await self._ask(self._adapter.check)

    async def describe(self) -> Description:
        """As the port says."""
        with naming(self._uri):
            reply: object = await self._ask(self._adapter.describe)
            if not isinstance(reply, Description):
                raise Corrupt("its adapter described it with something that is not a Description")
            return reply

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        return await ask(call, uri=self._uri, deadline_s=self._deadline_s)


def _checked_key(reply: object) -> bytes:
    if not isinstance(reply, bytes) or len(reply) != KEY_BYTES:
        raise Corrupt(f"its adapter answered with something that is not a key of {KEY_BYTES} bytes")
    return reply


def _checked_wrap(reply: object, key: bytes) -> Wrap:
    if not isinstance(reply, Wrap):
        raise Corrupt("its adapter answered with something that is not a wrapped key")
    check_blob(reply.blob)
    version: object = reply.key_version
    if not isinstance(version, str) or len(version) > KEY_VERSION_CHARS_MAX:
        raise Corrupt(f"its adapter named a key version that is not text of at most {KEY_VERSION_CHARS_MAX} characters")
    if key in reply.blob:
        # 32 random bytes do not turn up in a real wrap by chance; stored, this blob would be a plaintext key at rest.
        raise Corrupt("its adapter answered with a blob that holds the key in the clear")
    return reply
