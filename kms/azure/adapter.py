"""One key of Azure Key Vault or a Managed HSM as a Kms: the adapter.

The service authenticates no context beside what it wraps, so `kms.binding` puts the context inside. Requests go
through `KeyClient.send_request`, the SDK's pipeline with its sign-in, and not through its `CryptographyClient`: that
one does RSA wraps in this process with the public key, where the vault neither audits them nor sees that the right to
wrap was taken away.
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from azure.core.rest import AsyncHttpResponse, HttpRequest
from azure.keyvault.keys.aio import KeyClient

from kms.azure.answers import Found, KeyBundle, Result, VersionPage, answered_at, bytes_of, decoded, state_at
from kms.azure.connection import client_for, session_for
from kms.azure.translation import refusal, translating
from kms.azure.uri import KEY_URL, VaultKey, parse_uri
from kms.binding import BOUND_BYTES, bind, unbind
from kms.bounds import check_blob, check_context, check_key
from kms.errors import BadKey, Corrupt, Denied, Unavailable
from kms.naming import naming, unread
from kms.port import KEY_BYTES, Caller, Description, Kms, Wrap

CALL_S = 1.8
"""How long one call may take, sign-in and the one retry included: less than the broker's 2 s, so that we say why."""
OPEN_S = 5.0
"""How long the look at a key may take when it is opened: a managed identity's first token can take seconds."""
VERSION_PAGES_MAX = 20
"""How many pages of 25 versions are looked through for one that may wrap."""

_VERSION = re.compile(r"[0-9A-Za-z]{1,64}", re.ASCII)
_A256KW_BYTES = BOUND_BYTES + 8
"""Size of a bound key under AES key wrap (RFC 3394); no RSA blob is that small."""
_CHECK_CONTEXT = {"purpose": "check"}


@asynccontextmanager
async def open_azure(uri: str) -> AsyncIterator[Kms]:
    """Sign in, and look at the key that `uri` names; connections are closed at the end.

    BadKey: the URI, the CA file, the AZURE_ variables, or the key's type, size or permitted operations. A key that is
    disabled or does not answer, and a sign-in that fails, open all the same, and each call says so: others may serve.
    """
    with naming(unread(uri)):
        where = parse_uri(uri)
    async with AsyncExitStack() as stack:
        with naming(uri):
            session = await stack.enter_async_context(session_for(where))
            client = await stack.enter_async_context(client_for(where, session))
            kms = AzureKms(uri=uri, where=where, client=client)
            with suppress(Unavailable, Denied, Corrupt):
                await kms.look()
        yield kms


class AzureKms:
    """One key of a vault or a Managed HSM. Wraps with its newest usable version, unwraps with the one that wrapped.

    The vault cannot decide per worker, so a caller is Denied. The key is looked at before each wrap, because the vault
    itself still wraps with a disabled RSA key.
    """

    def __init__(self, *, uri: str, where: VaultKey, client: KeyClient) -> None:
        self._uri = uri
        self._where = where
        self._client = client

    def __repr__(self) -> str:
        return f"AzureKms({self._uri!r})"

    @property
    def uri(self) -> str:
        """As the port says."""
        return self._uri

    async def look(self) -> None:
        """Return if the key may wrap now; raise what `wrap` raises. Has more time than a call, for a first sign-in."""
        async with translating(OPEN_S):
            await self._wrapping_key()

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        """As the port says, in two requests; the blob has 88 bytes (AES), or the size of the RSA key."""
        with naming(self._uri):
            check_key(key)
            bound = bind(key, check_context(context, or_raise=BadKey))
            async with translating(CALL_S):
                chosen = await self._wrapping_key()
                blob = await self._operate("wrapkey", chosen.version, chosen.algorithm, bound)
            return Wrap(key_version=chosen.version, blob=blob)

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        """As the port says. Denied: any caller. Disabled: the version that the wrap names is disabled, or gone."""
        with naming(self._uri):
            check_blob(wrap.blob)
            asked = check_context(context, or_raise=Corrupt)
            if caller is not None:
                raise Denied('a vault cannot decide per worker; set authorize = "broker" for this keyring')
            if not _VERSION.fullmatch(wrap.key_version):
                raise Corrupt("the record that holds the wrapped key names no version of a vault's key")
            algorithm = "A256KW" if len(wrap.blob) == _A256KW_BYTES else "RSA-OAEP-256"
            async with translating(CALL_S):
                bound = await self._operate("unwrapkey", wrap.key_version, algorithm, wrap.blob)
            return unbind(bound, asked)

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        """As the port says."""
        key = secrets.token_bytes(KEY_BYTES)
        return key, await self.wrap(key, context)

    async def check(self) -> None:
        """As the port says, for the version that wraps now; takes three requests."""
        sample, wrap = await self.generate(_CHECK_CONTEXT)
        if await self.unwrap(wrap, _CHECK_CONTEXT) != sample:
            raise Corrupt("the key does not open what it wrapped", kms_key=self._uri)

    async def describe(self) -> Description:
        """As the port says: of the version that wraps, or of the newest where none does."""
        with naming(self._uri):
            async with translating(CALL_S):
                found = await self._usable_or_newest()
        return Description(
            provider="azure-kv",
            state=found.state,
            key_version=found.version,
            hsm=found.kind.endswith("-HSM"),
            warnings=tuple(found.warnings()),
        )

    async def _wrapping_key(self) -> Found:
        found = await self._usable_or_newest()
        found.check()
        return found

    async def _usable_or_newest(self) -> Found:
        found = await self._key(self._where.version)
        if found.state == "enabled" or self._where.version:
            return found
        version = await self._newest_usable(found.asked_at)
        return await self._key(version) if version else found

    async def _key(self, version: str) -> Found:
        response = await self._ask("GET", f"/keys/{self._where.name}/{version}".rstrip("/"))
        answer = decoded(response, KeyBundle)
        return Found(
            version=self._version_in(answer.key.kid, version),
            kind=answer.key.kty,
            bits=int.from_bytes(bytes_of(answer.key.n)).bit_length(),
            operations=frozenset(answer.key.key_ops),
            attributes=answer.attributes,
            asked_at=answered_at(response),
        )

    async def _newest_usable(self, now: float | None) -> str:
        """The version made last of those that may wrap, "" for none."""
        newest: tuple[int, str] = (-1, "")
        query = "maxresults=25"
        for _ in range(VERSION_PAGES_MAX):
            answer = decoded(await self._ask("GET", f"/keys/{self._where.name}/versions?{query}"), VersionPage)
            usable = [each for each in answer.value or () if state_at(each.attributes, now) == "enabled"]
            newest = max([newest, *((each.attributes.created, self._version_in(each.kid)) for each in usable)])
            # Of the next page's address only the query: the access token goes nowhere but to this vault.
            query = (answer.next_link or "").partition("?")[2]
            if not query:
                break
        return newest[1]

    async def _operate(self, operation: str, version: str, algorithm: str, value: bytes) -> bytes:
        response = await self._ask(
            "POST",
            f"/keys/{self._where.name}/{version}/{operation}",
            {"alg": algorithm, "value": urlsafe_b64encode(value).rstrip(b"=").decode()},
        )
        answer = decoded(response, Result)
        self._version_in(answer.kid, version)
        return bytes_of(answer.value)

    async def _ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> AsyncHttpResponse:
        request = HttpRequest(method, path, json=body)
        # Wrapping or unwrapping once more than asked harms nobody; a kept connection that was just closed is common.
        response = await self._client.send_request(request, retry_on_methods=("GET", "POST"))
        if response.status_code != 200:
            raise refusal(response, path)
        return response

    def _version_in(self, kid: str, expected: str = "") -> str:
        """The version in the key identifier of an answer. Corrupt: it is another key's, or not the `expected` one."""
        match = KEY_URL.fullmatch(kid)
        # A vault takes names in any case, and answers in the case that the key was made with.
        if match is None or match["name"].lower() != self._where.name.lower() or not match["version"]:
            raise Corrupt("the vault's answer is about another key, or about none")
        if expected and match["version"].lower() != expected.lower():
            raise Corrupt("the vault's answer is about another version of the key")
        return match["version"]
