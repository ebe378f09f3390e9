"""The local KMS: one key file as a Kms. Which file, and when it is read again, is in `watched`."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from kms.bounds import check_blob, check_context, check_key
from kms.errors import BadKey, Corrupt
from kms.local.envelope import unwrap_key, version_of, wrap_key
from kms.local.opened import OpenedKey
from kms.local.policy import admit
from kms.local.uri import parse_uri
from kms.local.watched import Watched
from kms.naming import naming, unread
from kms.port import KEY_BYTES, Caller, Description, Kms, Wrap

NOT_AN_HSM = (
    "a local key is no HSM: whoever reads the key file (with its passphrase, if it has one) and the database can open"
    " every token"
)
UNSEALED = "the key file is not sealed with a passphrase: a copy of it, a backup included, is the key"

_CHECK_CONTEXT = {"purpose": "check"}


@asynccontextmanager
async def open_local(uri: str) -> AsyncIterator[Kms]:
    """Open the key file that `uri` (`local:PATH?…`, see `kms.local.uri`) names; the keys are dropped at the end.

    BadKey: the URI, the key file, its permissions, the passphrase or the policy file is wrong; the message names it.
    """
    with naming(unread(uri)):
        where = parse_uri(uri)
    watched = Watched(uri=where)
    with naming(uri):
        await watched.first()
    try:
        yield LocalKms(uri=uri, watched=watched)
    finally:
        watched.forget()


class LocalKms:
    """One local key. Private keys stay in this process's memory.

    Every call first looks whether the files changed: disabling a version or tightening the policy takes effect with
    the next call. A file that is missing or unreadable meanwhile is Unavailable. A policy decides per worker, by the
    worker and groups that the broker states and by context["keyring"]; it also fences keyrings without a worker.
    """

    def __init__(self, *, uri: str, watched: Watched) -> None:
        self._uri = uri
        self._watched = watched

    def __repr__(self) -> str:
        return f"LocalKms({self._uri!r})"

    @property
    def uri(self) -> str:
        """As the port says."""
        return self._uri

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        """As the port says; the blob has 85 bytes. Disabled: the active version is."""
        with naming(self._uri):
            check_key(key)
            asked = check_context(context, or_raise=BadKey)
            loaded = await self._watched.current()
            admit(loaded.policy, asked, None)
            return _wrap(loaded.key, key, asked)

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        """As the port says. Denied: the policy, or a caller without a policy. Disabled: the blob's version is."""
        with naming(self._uri):
            check_blob(wrap.blob)
            asked = check_context(context, or_raise=Corrupt)
            loaded = await self._watched.current()
            admit(loaded.policy, asked, caller)
            return _unwrap(loaded.key, wrap, asked)

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        """As the port says."""
        key = secrets.token_bytes(KEY_BYTES)
        return key, await self.wrap(key, context)

    async def check(self) -> None:
        """As the port says, for the active version; the policy is read, and not asked."""
        with naming(self._uri):
            key = (await self._watched.current()).key
            sample = secrets.token_bytes(KEY_BYTES)
            if _unwrap(key, _wrap(key, sample, _CHECK_CONTEXT), _CHECK_CONTEXT) != sample:
                raise Corrupt("the key does not open what it wrapped")

    async def describe(self) -> Description:
        """As the port says; state is that of the active version."""
        with naming(self._uri):
            key = (await self._watched.current()).key
        return Description(
            provider="local",
            state=key.active_version.state.value,
            key_version=str(key.active),
            hsm=False,
            warnings=(NOT_AN_HSM,) if key.sealed else (NOT_AN_HSM, UNSEALED),
        )


def _wrap(opened: OpenedKey, key: bytes, context: Mapping[str, str]) -> Wrap:
    version = opened.wrapping_version()
    blob = wrap_key(key, public_key=version.public_key, key_id=opened.key_id, version=version.number, context=context)
    return Wrap(key_version=str(version.number), blob=blob)


def _unwrap(opened: OpenedKey, wrap: Wrap, context: Mapping[str, str]) -> bytes:
    number = version_of(wrap.blob)
    if wrap.key_version not in ("", str(number)):
        raise Corrupt("the wrapped key names another version than the record that holds it")
    version = opened.unwrapping_version(number)
    return unwrap_key(wrap.blob, private_key=version.private_key, key_id=opened.key_id, version=number, context=context)
