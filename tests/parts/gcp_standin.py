"""Stand-ins for Google Cloud KMS and its login, made from the public API reference: real sockets, real AES-GCM.

The messages are those of Google's SDK, which also fixes names and numbers of the fields. Texts of errors are those that
users of the service have reported in public. What Google does beyond that is not known here: nobody compared the two.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import google_crc32c
import grpc.aio
from aiohttp import web
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud import kms_v1

SERVICE = "google.cloud.kms.v1.KeyManagementService"
RING = "projects/laws-1/locations/europe-west3/keyRings/tokenbroker"
ROTATES_AT = datetime(2031, 5, 6, tzinfo=UTC)
DESTROYED_AT = datetime(2030, 1, 2, tzinfo=UTC)

Purpose = kms_v1.CryptoKey.CryptoKeyPurpose
Algorithm = kms_v1.CryptoKeyVersion.CryptoKeyVersionAlgorithm
State = kms_v1.CryptoKeyVersion.CryptoKeyVersionState
Level = kms_v1.ProtectionLevel
Status = grpc.StatusCode


@dataclass(kw_only=True)
class Version:
    """One version of a key; its secret never leaves."""

    state: State = State.ENABLED
    secret: bytes = field(default_factory=lambda: os.urandom(32), repr=False)


@dataclass(kw_only=True)
class Key:
    """One CryptoKey. A blob is: id of the key (16 bytes), number of the version (4), nonce (12), AES-256-GCM."""

    name: str
    purpose: Purpose = Purpose.ENCRYPT_DECRYPT
    algorithm: Algorithm = Algorithm.GOOGLE_SYMMETRIC_ENCRYPTION
    level: Level = Level.SOFTWARE
    rotates: bool = True
    primary: int = 1
    versions: dict[int, Version] = field(default_factory=lambda: {1: Version()})
    key_id: bytes = field(default_factory=lambda: os.urandom(16))

    def shown(self, number: int) -> kms_v1.CryptoKeyVersion:
        """A version as Google shows it."""
        version = self.versions[number]
        return kms_v1.CryptoKeyVersion(
            name=f"{self.name}/cryptoKeyVersions/{number}",
            state=version.state,
            protection_level=self.level,
            algorithm=self.algorithm,
            destroy_time=DESTROYED_AT if version.state == State.DESTROY_SCHEDULED else None,
        )


class Standin:
    """The service. Faults: `refuse` (method to status and text), `change` (method to what is done to its answer),
    `damage` (method to what happens to its request on the way), `hang` (methods that never answer).
    """

    def __init__(self) -> None:
        self.address = ""
        self.keys: dict[str, Key] = {}
        self.calls: list[str] = []
        self.metadata: list[dict[str, str]] = []
        self.refuse: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.change: dict[str, Callable[[Any], Any]] = {}
        self.damage: dict[str, Callable[[Any], None]] = {}
        self.hang: set[str] = set()
        self.hanging = asyncio.Event()

    def key(self, short: str = "laws", **fields: Any) -> Key:
        """A new key of the ring."""
        key = Key(name=f"{RING}/cryptoKeys/{short}", **fields)
        self.keys[key.name] = key
        return key

    def uri(self, key: Key, **options: str) -> str:
        """The URI of a key, at this stand-in."""
        more = "".join(f"&{name.replace('_', '-')}={value}" for name, value in options.items())
        return f"gcp-kms:{key.name}?endpoint={self.address}{more}"

    def handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server serves."""
        methods = {
            "Encrypt": (self._encrypt, kms_v1.EncryptRequest),
            "Decrypt": (self._decrypt, kms_v1.DecryptRequest),
            "GetCryptoKey": (self._get, kms_v1.GetCryptoKeyRequest),
            "ListCryptoKeyVersions": (self._list, kms_v1.ListCryptoKeyVersionsRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._faulty(name, method),
                request_deserializer=request.deserialize,
                response_serializer=lambda answer: (
                    answer if isinstance(answer, bytes) else type(answer).serialize(answer)
                ),
            )
            for name, (method, request) in methods.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def _faulty(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def serve(request: Any, context: grpc.aio.ServicerContext) -> Any:
            self.calls.append(name)
            self.metadata.append({key: str(value) for key, value in context.invocation_metadata() or ()})
            if name in self.hang:
                self.hanging.set()
                await asyncio.Event().wait()
            if name in self.refuse:
                await context.abort(*self.refuse[name])
            self.damage.get(name, lambda request: None)(request)
            answer = await method(request, context)
            return self.change.get(name, lambda answer: answer)(answer)

        return serve

    async def _key(self, name: str, context: grpc.aio.ServicerContext) -> Key:
        if name not in self.keys:
            await context.abort(Status.NOT_FOUND, f"CryptoKey {name} not found.")
        return self.keys[name]

    async def _secret(self, key: Key, number: int, context: grpc.aio.ServicerContext) -> bytes:
        version = key.versions[number]
        if version.state != State.ENABLED:
            text = f"{key.name}/cryptoKeyVersions/{number} is not enabled, current state is: {version.state.name}."
            await context.abort(Status.FAILED_PRECONDITION, text)
        return version.secret

    async def _encrypt(
        self, request: kms_v1.EncryptRequest, context: grpc.aio.ServicerContext
    ) -> kms_v1.EncryptResponse:
        key = await self._key(request.name, context)
        if key.purpose != Purpose.ENCRYPT_DECRYPT:
            await context.abort(Status.INVALID_ARGUMENT, f"The purpose of {key.name} is {key.purpose.name}.")
        sent = await _compared(request, context, "plaintext", "additional_authenticated_data")
        secret = await self._secret(key, key.primary, context)
        nonce = os.urandom(12)
        sealed = AESGCM(secret).encrypt(nonce, request.plaintext, request.additional_authenticated_data)
        blob = key.key_id + key.primary.to_bytes(4, "big") + nonce + sealed
        return kms_v1.EncryptResponse(
            name=f"{key.name}/cryptoKeyVersions/{key.primary}",
            ciphertext=blob,
            ciphertext_crc32c=google_crc32c.value(blob),
            verified_plaintext_crc32c="plaintext" in sent,
            verified_additional_authenticated_data_crc32c="additional_authenticated_data" in sent,
            protection_level=key.level,
        )

    async def _decrypt(
        self, request: kms_v1.DecryptRequest, context: grpc.aio.ServicerContext
    ) -> kms_v1.DecryptResponse:
        key = await self._key(request.name, context)
        await _compared(request, context, "ciphertext", "additional_authenticated_data")
        blob = request.ciphertext
        number = int.from_bytes(blob[16:20], "big")
        if blob[:16] != key.key_id or number not in key.versions:
            text = "Decryption failed: verify that 'name' refers to the correct CryptoKey."
            await context.abort(Status.INVALID_ARGUMENT, text)
        secret = await self._secret(key, number, context)
        try:
            plaintext = AESGCM(secret).decrypt(blob[20:32], blob[32:], request.additional_authenticated_data)
        except (InvalidTag, ValueError):
            await context.abort(Status.INVALID_ARGUMENT, "Decryption failed: the ciphertext is invalid.")
        return kms_v1.DecryptResponse(
            plaintext=plaintext,
            plaintext_crc32c=google_crc32c.value(plaintext),
            used_primary=number == key.primary,
            protection_level=key.level,
        )

    async def _get(self, request: kms_v1.GetCryptoKeyRequest, context: grpc.aio.ServicerContext) -> kms_v1.CryptoKey:
        key = await self._key(request.name, context)
        symmetric = key.purpose == Purpose.ENCRYPT_DECRYPT
        return kms_v1.CryptoKey(
            name=key.name,
            purpose=key.purpose,
            primary=key.shown(key.primary) if symmetric else None,
            version_template=kms_v1.CryptoKeyVersionTemplate(algorithm=key.algorithm, protection_level=key.level),
            next_rotation_time=ROTATES_AT if key.rotates else None,
        )

    async def _list(
        self, request: kms_v1.ListCryptoKeyVersionsRequest, context: grpc.aio.ServicerContext
    ) -> kms_v1.ListCryptoKeyVersionsResponse:
        key = await self._key(request.parent, context)
        _, _, wanted = request.filter.partition("state=")
        found = [key.shown(number) for number, version in key.versions.items() if version.state.name == wanted]
        return kms_v1.ListCryptoKeyVersionsResponse(crypto_key_versions=found[: request.page_size])


async def _compared(request: Any, context: grpc.aio.ServicerContext, *fields: str) -> set[str]:
    """Which fields came with a checksum; aborts if one does not fit, as the data integrity guide says."""
    sent = set()
    for name in fields:
        checksum = getattr(request, f"{name}_crc32c")
        if checksum is not None:
            if checksum != google_crc32c.value(getattr(request, name)):
                text = f"The checksum in field {name}_crc32c did not match the data in field {name}."
                await context.abort(Status.INVALID_ARGUMENT, text)
            sent.add(name)
    return sent


@asynccontextmanager
async def serving(
    *, host: str = "127.0.0.1", port: int = 0, tls: tuple[bytes, bytes] | None = None
) -> AsyncIterator[Standin]:
    """A stand-in at a port of its own. tls: private key and certificate, PEM."""
    standin = Standin()
    async with listening(standin, host=host, port=port, tls=tls):
        yield standin


@asynccontextmanager
async def listening(
    standin: Standin, *, host: str = "127.0.0.1", port: int = 0, tls: tuple[bytes, bytes] | None = None
) -> AsyncIterator[None]:
    """`standin` behind a listening socket; every connection is cut at the end."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((standin.handler(),))
    where = f"{host}:{port}"
    if tls is None:
        bound = server.add_insecure_port(where)
    else:
        bound = server.add_secure_port(where, grpc.ssl_server_credentials([tls]))
    standin.address = f"{host}:{bound}"
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


class Login:
    """Google's token endpoint for service accounts. `status` and `answer` are what it says, once `released` is set."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.answer: dict[str, object] = {"access_token": "access-1", "expires_in": 3600, "token_type": "Bearer"}
        self.calls = 0
        self.released = asyncio.Event()
        self.released.set()

    async def _token(self, request: web.Request) -> web.Response:
        self.calls += 1
        await self.released.wait()
        return web.json_response(self.answer, status=self.status)


@asynccontextmanager
async def logging_in() -> AsyncIterator[Login]:
    """A token endpoint at a port of its own."""
    login = Login()
    app = web.Application()
    app.router.add_post("/token", login._token)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    login.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    try:
        yield login
    finally:
        await runner.cleanup()
