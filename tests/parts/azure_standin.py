"""A stand-in for Azure Key Vault and Managed HSM, and for the sign-in to them, on real sockets.

Made from the public REST reference (get key, get key versions, wrap key, unwrap key; authentication, requests and
responses; error codes), since no emulator exists. The cryptography inside is real. Its clock stands still at NOW, so
that no test depends on the day. Two things are as people report them of the service rather than as its reference says:
a disabled RSA key still wraps, and does not unwrap; an expired one unwraps, and does not wrap.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

NOW = 1_900_000_000
"""What the vault's clock says, for ever."""
IDENTITY_HEADER = "a-header-that-only-local-processes-know"
ACCESS_TOKEN = "standin-access-token-5d1f6a"
TENANT = "standin"
CLIENT_SECRET = "a-secret-of-the-service-principal"
_OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]


@cache
def rsa_key(number: int, bits: int = 2048) -> rsa.RSAPrivateKey:
    """RSA keys by number, made once in a test run: making one takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@dataclass(kw_only=True)
class Version:
    """One version of a key; tests change it as `az keyvault key set-attributes` would."""

    version: str
    kty: str
    rsa: rsa.RSAPrivateKey | None = None
    aes: bytes = b""
    enabled: bool = True
    nbf: int | None = None
    exp: int | None = None
    created: int = NOW
    exportable: bool = False
    recovery_level: str = "Recoverable"
    key_ops: tuple[str, ...] = ("encrypt", "decrypt", "wrapKey", "unwrapKey")

    def attributes(self) -> dict[str, Any]:
        found = {"enabled": self.enabled, "created": self.created, "updated": self.created}
        found |= {"recoveryLevel": self.recovery_level, "exportable": self.exportable}
        return found | {name: at for name, at in (("nbf", self.nbf), ("exp", self.exp)) if at is not None}


@dataclass(kw_only=True)
class Vault:
    """What stands in. `fault` answers in place of the vault where `fault_at` is in the path."""

    url: str = ""
    identity_url: str = ""
    certificate: Path
    keys: dict[str, list[Version]] = field(default_factory=dict)
    fault: Fault | None = None
    fault_at: str = ""
    identity_fault: Fault | None = None
    change: Callable[[bytes], tuple[bytes, dict[str, str]]] | None = None
    """Changes the body of what the vault answers to an operation, and adds headers."""
    resource: str = ""
    """What the vault asks its clients to sign in to."""
    asked: list[str] = field(default_factory=list)
    """Method and path of every request with an access token."""
    resources: list[str] = field(default_factory=list)
    """For what an access token was asked."""
    page: int = 25

    def add(self, name: str, number: int, *, kty: str = "RSA-HSM", bits: int = 2048, **attributes: Any) -> Version:
        """A new version of the key `name`, as `az keyvault key create` makes it. number: which key material it has."""
        made = Version(version=f"{len(self.keys.get(name, [])) + 1:032x}", kty=kty, **attributes)
        if kty == "oct-HSM":
            made.aes = bytes([number]) * 32
        elif kty.startswith("RSA"):
            made.rsa = rsa_key(number, bits)
        made.created += len(self.keys.get(name, []))
        self.keys.setdefault(name, []).append(made)
        return made

    def uri(self, name: str, version: str = "") -> str:
        """The key URI of a key here."""
        path = f"{name}/{version}" if version else name
        return f"azure-kv:{self.url}/keys/{path}?ca-file={self.certificate}"

    def challenge(self) -> str:
        """The header of an answer that asks for a sign-in."""
        return f'Bearer authorization="https://login.microsoftonline.com/{TENANT}", resource="{self.resource}"'

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer as the vault."""
        if self.fault is not None and self.fault_at in request.path:
            return await self.fault(request)
        if request.path == f"/{TENANT}/oauth2/v2.0/token":
            return self._signed_in(await request.post())
        if request.headers.get("Authorization") != f"Bearer {ACCESS_TOKEN}":
            return refused(401, "Unauthorized", headers={"WWW-Authenticate": self.challenge()})
        self.asked.append(f"{request.method} {request.path}")
        return await self._served(request)

    async def _served(self, request: web.Request) -> web.StreamResponse:
        name, _, rest = request.path.removeprefix("/keys/").partition("/")
        versions = self.keys.get(name.lower())
        if not request.path.startswith("/keys/") or versions is None:
            return refused(404, "KeyNotFound")
        if request.method == "GET" and rest == "versions":
            return self._page(name, versions, request)
        version, _, operation = rest.partition("/")
        chosen = next((each for each in versions if each.version == version), None if version else versions[-1])
        if chosen is None:
            return refused(404, "KeyNotFound")
        if request.method == "GET" and not operation:
            return answered({"key": self._jwk(name, chosen), "attributes": chosen.attributes()})
        return self._operated(name, chosen, operation, await request.json())

    def _signed_in(self, form: Any) -> web.Response:
        """Answer as the token endpoint of Microsoft Entra, to a client secret or a federated token."""
        if CLIENT_SECRET not in (form.get("client_secret"), form.get("client_assertion")):
            refusal = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}
            return web.json_response(refusal, status=401)
        self.resources.append(form["scope"].removesuffix("/.default"))
        return web.json_response({"access_token": ACCESS_TOKEN, "expires_in": 86400, "token_type": "Bearer"})

    async def identify(self, request: web.Request) -> web.StreamResponse:
        """Answer as the identity endpoint of App Service (api-version 2019-08-01)."""
        if self.identity_fault is not None:
            return await self.identity_fault(request)
        if request.headers.get("X-IDENTITY-HEADER") != IDENTITY_HEADER:
            return web.json_response({"statusCode": 401}, status=401)
        self.resources.append(request.query["resource"])
        return web.json_response(
            {
                "access_token": ACCESS_TOKEN,
                "expires_on": "4102444800",
                "resource": request.query["resource"],
                "token_type": "Bearer",
            }
        )

    def _kid(self, name: str, version: Version) -> str:
        return f"{self.url}/keys/{name.lower()}/{version.version}"

    def _jwk(self, name: str, version: Version) -> dict[str, Any]:
        jwk: dict[str, Any] = {"kid": self._kid(name, version), "kty": version.kty, "key_ops": version.key_ops}
        if version.rsa is not None:
            public = version.rsa.public_key().public_numbers()
            jwk |= {"n": _base64url(public.n.to_bytes(version.rsa.key_size // 8)), "e": "AQAB"}
        return jwk

    def _page(self, name: str, versions: list[Version], request: web.Request) -> web.Response:
        first = int(request.query.get("$skiptoken", "0"))
        shown = versions[first : first + self.page]
        following = first + self.page
        more = f"{self.url}/keys/{name}/versions?$skiptoken={following}" if following < len(versions) else None
        items = [{"kid": self._kid(name, each), "attributes": each.attributes()} for each in shown]
        return answered({"value": items, "nextLink": more})

    def _operated(self, name: str, version: Version, operation: str, asked: dict[str, str]) -> web.Response:
        forbidden = _forbidden(version, operation)
        if forbidden:
            return refused(403, "Forbidden", inner=forbidden)
        value = urlsafe_b64decode(asked["value"] + "==")
        try:
            made = _computed(version, operation, asked["alg"], value)
        except (ValueError, InvalidUnwrap, InvalidSignature):
            return refused(400, "BadParameter")
        content = {"kid": self._kid(name, version), "value": _base64url(made)}
        if self.change is not None:
            body, headers = self.change(json.dumps(content).encode())
            return web.Response(body=body, headers=headers, content_type="application/json")
        return answered(content)


def _forbidden(version: Version, operation: str) -> str:
    """Why the vault does not do this with this version, "" if it does."""
    if {"wrapkey": "wrapKey", "unwrapkey": "unwrapKey"}.get(operation) not in version.key_ops:
        return "KeyOperationForbidden"
    if operation == "unwrapkey":
        return "" if version.enabled else "KeyDisabled"
    if version.exp is not None and version.exp <= NOW:
        return "KeyExpired"
    return "KeyNotYetValid" if version.nbf is not None and version.nbf > NOW else ""


def _computed(version: Version, operation: str, algorithm: str, value: bytes) -> bytes:
    if version.rsa is not None and algorithm == "RSA-OAEP-256":
        if operation == "wrapkey":
            return version.rsa.public_key().encrypt(value, _OAEP)
        return version.rsa.decrypt(value, _OAEP)
    if version.aes and algorithm == "A256KW":
        return aes_key_wrap(version.aes, value) if operation == "wrapkey" else aes_key_unwrap(version.aes, value)
    raise ValueError(algorithm)


def answered(content: dict[str, Any]) -> web.Response:
    """A good answer, at the vault's own time."""
    return web.json_response(content, headers={"Date": format_datetime(datetime.fromtimestamp(NOW, UTC), usegmt=True)})


def refused(status: int, code: str, *, inner: str = "", headers: dict[str, str] | None = None) -> web.Response:
    """An answer as the error reference shows them."""
    error: dict[str, Any] = {"code": code, "message": f"{code} was answered."}
    if inner:
        error["innererror"] = {"code": inner}
    return web.json_response({"error": error}, status=status, headers=headers)


def always(status: int, body: bytes = b"", **headers: str) -> Fault:
    """A fault that gives this answer to everybody."""

    async def fault(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={"Content-Type": "application/json", **headers})

    return fault


async def silence(_: web.Request) -> web.StreamResponse:
    """A fault that never answers."""
    await asyncio.Event().wait()
    raise AssertionError


async def hang_up(request: web.Request) -> web.StreamResponse:
    """A fault that closes the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def self_signed(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A fresh certificate for 127.0.0.1 in `folder`, and what serves with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "vault stand-in")])
    now = datetime.now(UTC)  # noqa: TID251 (a certificate is judged by the clock of the one who connects)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "vault.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path = folder / "vault.key"
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path, key_path)
    return path, context


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Vault]:
    """A vault without keys over TLS, and an identity endpoint; both end with the context."""
    certificate, context = self_signed(folder)
    vault = Vault(certificate=certificate)
    runners = [web.ServerRunner(web.Server(each), shutdown_timeout=0.1) for each in (vault.answer, vault.identify)]
    try:
        for runner in runners:
            await runner.setup()
        await web.TCPSite(runners[0], "127.0.0.1", 0, ssl_context=context).start()
        await web.TCPSite(runners[1], "127.0.0.1", 0).start()
        port = runners[0].addresses[0][1]
        vault.url = f"https://127.0.0.1:{port}"
        # The SDK signs in only to a resource whose domain the vault's name ends with, as vault.azure.net.
        vault.resource = f"https://0.0.1:{port}"
        vault.identity_url = f"http://127.0.0.1:{runners[1].addresses[0][1]}/msi/token"
        yield vault
    finally:
        for runner in runners:
            await runner.cleanup()


def _base64url(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()
