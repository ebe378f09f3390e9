"""The PKCS#11 adapter: one key on a token as a Kms, which outlives the sessions it is used through.

The token cannot bind a context to what it wraps, so what it wraps is bound by `kms.binding`. It cannot decide per
worker either: whoever has the PIN may use the key. How the key is found, and found again, is in `held_key`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from kms.binding import bind, unbind
from kms.bounds import check_blob, check_context, check_key
from kms.errors import BadKey, Corrupt, Denied
from kms.naming import naming, unread
from kms.pkcs11.held_key import HeldKey
from kms.pkcs11.module import Module, module_at
from kms.pkcs11.uri import parse_uri
from kms.port import KEY_BYTES, Caller, Description, Kms, Wrap

CLOSE_S = 5.0
"""How long closing waits for the library; what it still does then ends with its last call."""


@asynccontextmanager
async def open_pkcs11(uri: str) -> AsyncIterator[Kms]:
    """Open the key that `uri` (see `kms.pkcs11.uri`) names, after a round trip with it; it is let go of at the end.

    BadKey: the URI, the library, the PIN or its file, or the key is wrong. Denied: the PIN is locked, or about to be.
    Unavailable: no such token is there now, or the library is stuck.
    """
    with naming(unread(uri)):
        where = parse_uri(uri)
        module = module_at(where.module_path)
    held = HeldKey(uri=where, module=module)
    try:
        with naming(uri):
            await module.thread.run(held.open)
        yield Pkcs11Kms(uri=uri, held=held, module=module)
    finally:
        await module.thread.finish(held.close, wait_s=CLOSE_S)


class Pkcs11Kms:
    """One key on a token. The blob of an RSA key is as long as its modulus; that of an AES key has 88 bytes."""

    def __init__(self, *, uri: str, held: HeldKey, module: Module) -> None:
        self._uri = uri
        self._held = held
        self._module = module

    def __repr__(self) -> str:
        return f"Pkcs11Kms({self._uri!r})"

    @property
    def uri(self) -> str:
        """As the port says."""
        return self._uri

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        """As the port says. Disabled: the key is gone from the token."""
        with naming(self._uri):
            check_key(key)
            bound = bind(key, check_context(context, or_raise=BadKey))
            return Wrap(key_version="", blob=await self._module.thread.run(lambda: self._held.wrap(bound)))

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        """As the port says. Denied: for every caller. Disabled: the key is gone from the token."""
        with naming(self._uri):
            if caller is not None:
                raise Denied('a PKCS#11 token cannot decide per worker; take another KMS for authorize = "kms"')
            check_blob(wrap.blob)
            asked = check_context(context, or_raise=Corrupt)
            return unbind(await self._module.thread.run(lambda: self._held.unwrap(wrap.blob)), asked)

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        """As the port says; the key is made here, not on the token, which would hand it out anyway."""
        key = secrets.token_bytes(KEY_BYTES)
        return key, await self.wrap(key, context)

    async def check(self) -> None:
        """As the port says."""
        with naming(self._uri):
            await self._module.thread.run(self._held.check)

    async def describe(self) -> Description:
        """As the port says."""
        with naming(self._uri):
            return await self._module.thread.run(self._held.describe)
