"""A transit key of HashiCorp Vault or OpenBao as a Kms.

Keys are made here, not by the server's `datakey`: the same key is wrapped by every KMS key of a keyring, so wrapping
is needed anyway; and a policy that allows encrypt and decrypt is all that this takes.
"""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TypeVar

import msgspec

from kms.bounds import check_blob, check_context, check_key
from kms.errors import BadKey, Corrupt, Denied, KmsError, Unavailable
from kms.naming import naming, unread
from kms.port import KEY_BYTES, Caller, Description, Kms, Wrap
from kms.transit.blob import associated_data, ciphertext_of, key_of, wrap_of
from kms.transit.errors import Forbidden, Step
from kms.transit.key_facts import KeyAnswer, KeyFacts, check_usable, warnings_of
from kms.transit.login import Login, source_of
from kms.transit.server import Server, connecting
from kms.transit.session import Session, keeping
from kms.transit.uri import TransitUri, parse_uri
from kms.transit.workers import WorkerTokens

NOT_ENCRYPTED = "http carries tokens and keys in the clear; it is allowed to a loopback address only, for tests"
UNREAD = "the policy does not allow reading the key, so its type and flags are not checked; allow read on its path"
UPSERTS = (
    "the policy allows creating keys: after a deletion, wrapping would make a new key of the same name; drop create"
)
ROOT = "a root token is in use: it may do everything, and never ends; log in with AppRole"
ENDLESS = "the token has no end: whoever copies it has it for ever; log in with AppRole"
FINITE = "the token cannot be renewed, and ends; have it replaced in token_file, or log in with AppRole"

_CHECK_CONTEXT = {"purpose": "check"}

T = TypeVar("T")


@asynccontextmanager
async def open_transit(uri: str) -> AsyncIterator[Kms]:
    """Open the key that `uri` (`transit:https://HOST:PORT/MOUNT/KEY?…`, see `kms.transit.uri`) names.

    Logs in and looks at the key. A server that does not answer, or refuses the login or the key, opens all the same,
    and each call says so: others may serve, and a login that was refused is not tried again with each opening. At the
    end the tokens that were made here are revoked, as far as the server answers.
    BadKey: the URI, a file it names, or the key's type is wrong.
    """
    with naming(unread(uri)):
        where = parse_uri(uri)
    async with AsyncExitStack() as stack:
        with naming(uri):
            server = await stack.enter_async_context(connecting(where))
            source = source_of(where, server)
            await asyncio.to_thread(source.check)
        session = await stack.enter_async_context(keeping(uri=uri, source=source, server=server))
        workers = None
        if where.worker_role is not None:
            workers = WorkerTokens(server=server, session=session, role=where.worker_role)
            stack.push_async_callback(workers.revoke_all)
        key = TransitKms(uri=uri, where=where, server=server, session=session, workers=workers)
        with naming(uri):
            await key.look()
        yield key


class _Sealed(msgspec.Struct, frozen=True):
    type: str
    version: str


class _Ciphertext(msgspec.Struct, frozen=True):
    ciphertext: str


class _Encrypted(msgspec.Struct, frozen=True):
    data: _Ciphertext


class _Plaintext(msgspec.Struct, frozen=True):
    plaintext: str


class _Decrypted(msgspec.Struct, frozen=True):
    data: _Plaintext


class _Capabilities(msgspec.Struct, frozen=True):
    capabilities: list[str]


class _Capable(msgspec.Struct, frozen=True):
    data: _Capabilities


class TransitKms:
    """One transit key. Every wrap and unwrap is one request, plus those of logging in when that is due."""

    def __init__(
        self, *, uri: str, where: TransitUri, server: Server, session: Session, workers: WorkerTokens | None
    ) -> None:
        self._uri = uri
        self._where = where
        self._server = server
        self._session = session
        self._workers = workers
        self._looked = False

    def __repr__(self) -> str:
        return f"TransitKms({self._uri!r})"

    @property
    def uri(self) -> str:
        """As the port says."""
        return self._uri

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        """As the port says. Disabled: the key is gone. The first wrap looks at the key, if opening could not."""
        with naming(self._uri):
            check_key(key)
            asked = check_context(context, or_raise=BadKey)
            if not self._looked:
                await self._facts()
            return await self._wrap(key, asked)

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        """As the port says. With a caller, the server decides by that worker's policies.

        Disabled: the key is gone, or its min_decryption_version is above the wrap's. Denied: also for want of a
        worker_role in the URI.
        """
        with naming(self._uri):
            check_blob(wrap.blob)
            asked = check_context(context, or_raise=Corrupt)
            ciphertext = ciphertext_of(wrap)
            if caller is None:
                return await self._unwrap(ciphertext, asked)
            if self._workers is None:
                raise Denied("this key cannot decide per worker; name a token role in worker_role")
            return await self._workers.use(caller, lambda token: self._decrypt(ciphertext, asked, token))

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        """As the port says."""
        key = secrets.token_bytes(KEY_BYTES)
        return key, await self.wrap(key, context)

    async def check(self) -> None:
        """As the port says: looks at the key, wraps and unwraps."""
        with naming(self._uri):
            await self._facts()
            sample = secrets.token_bytes(KEY_BYTES)
            wrap = await self._wrap(sample, _CHECK_CONTEXT)
            if await self._unwrap(ciphertext_of(wrap), _CHECK_CONTEXT) != sample:
                raise Corrupt("the key does not open what it wrapped")

    async def describe(self) -> Description:
        """As the port says."""
        with naming(self._uri):
            facts = await self._facts()
            login = await self._session.current()
            creates = await self._may_create()
            kind = facts.type if facts is not None else "key of an unknown type"
            state = f"{kind} on {await self._server_state()}"
        warnings = [NOT_ENCRYPTED] if not self._where.encrypted else []
        warnings += [UNREAD] if facts is None else warnings_of(facts)
        warnings += [UPSERTS] if creates else []
        return Description(
            provider="transit",
            state=state,
            key_version=str(facts.latest_version) if facts is not None else "",
            hsm=False,
            warnings=(*warnings, *_token_warnings(login)),
        )

    async def look(self) -> None:
        """Look at the key for the first time. BadKey: it is of another kind; whatever else is wrong, calls will say."""
        with suppress(Unavailable, Denied, Corrupt):
            await self._facts()

    async def _facts(self) -> KeyFacts | None:
        """What the server says of the key; None where the policy does not allow asking. BadKey, Disabled: unusable."""
        path = f"{self._where.mount}/keys/{self._where.key}"
        try:
            facts = (await self._session.use(lambda token: self._read(path, token))).data
        except Forbidden:
            facts = None
        if facts is not None:
            check_usable(facts)
        self._looked = True
        return facts

    async def _read(self, path: str, token: str) -> KeyAnswer:
        return await self._server.ask("GET", path, answer=KeyAnswer, step=Step.KEY, token=token)

    async def _wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        path = f"{self._where.mount}/encrypt/{self._where.key}"
        body = {"plaintext": b64encode(key).decode(), "associated_data": associated_data(context)}

        async def encrypt(token: str) -> _Encrypted:
            return await self._server.ask("POST", path, answer=_Encrypted, step=Step.KEY, token=token, body=body)

        return wrap_of((await self._as_broker(encrypt, path)).data.ciphertext)

    async def _unwrap(self, ciphertext: str, context: Mapping[str, str]) -> bytes:
        path = f"{self._where.mount}/decrypt/{self._where.key}"
        return await self._as_broker(lambda token: self._decrypt(ciphertext, context, token), path)

    async def _decrypt(self, ciphertext: str, context: Mapping[str, str], token: str) -> bytes:
        path = f"{self._where.mount}/decrypt/{self._where.key}"
        body = {"ciphertext": ciphertext, "associated_data": associated_data(context)}
        answer = await self._server.ask("POST", path, answer=_Decrypted, step=Step.KEY, token=token, body=body)
        return key_of(answer.data.plaintext)

    async def _as_broker(self, call: Callable[[str], Awaitable[T]], path: str) -> T:
        try:
            return await self._session.use(call)
        except Forbidden:
            raise Denied(
                f"the server refuses the broker's token: it has ended, or its policies do not allow update on {path}"
            ) from None

    async def _may_create(self) -> bool:
        """Whether encrypting would make a key that is not there. False where the server does not say."""
        body = {"path": f"{self._where.mount}/encrypt/{self._where.key}"}

        async def ask(token: str) -> _Capable:
            path = "sys/capabilities-self"
            return await self._server.ask("POST", path, answer=_Capable, step=Step.WHOSE, token=token, body=body)

        try:
            granted = (await self._session.use(ask)).data.capabilities
        except (Forbidden, Denied):
            return False
        return "create" in granted

    async def _server_state(self) -> str:
        path = "sys/seal-status"
        try:
            sealed = await self._server.ask("GET", path, answer=_Sealed, step=Step.WHOSE, in_namespace=False)
        except (Forbidden, KmsError):
            return "a server that tells nothing of itself"
        return f"server version {sealed.version[:40]!r}, seal {sealed.type[:40]!r}"


def _token_warnings(login: Login) -> tuple[str, ...]:
    if "root" in login.policies:
        return (ROOT,)
    if not login.may_look_up:
        return ()
    if login.ttl_s is None:
        return (ENDLESS,)
    return () if login.renewable or login.ours else (FINITE,)
