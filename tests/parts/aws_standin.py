"""A stand-in for AWS KMS and STS on a real socket, for what moto does not enforce. The SDK on our side is the real one.

It encrypts in earnest (AES-GCM over the encryption context), knows who signed a call by the access key, and decides by
session tags. Made from the public API references; it checks no signatures. What it answers next can be said with
`next`, instead of what it would.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import os
import ssl
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/tokenbroker-worker"
REGION = "eu-west-1"
ID_BYTES = 36

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(kw_only=True, eq=False)
class Key:
    """A KMS key. workers, groups: whom its policy lets decrypt through the role; the broker itself always may."""

    key_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    material: bytes = field(default_factory=lambda: os.urandom(32))
    metadata: dict[str, Any] = field(default_factory=dict)
    workers: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)

    @property
    def state(self) -> str:
        """Its KeyState."""
        return str(self.metadata.get("KeyState", "Enabled"))

    def arn(self, region: str) -> str:
        """Its ARN; that of a multi-Region key differs by region."""
        return f"arn:aws:kms:{region}:{ACCOUNT}:key/{self.key_id}"


class Refusal(Exception):
    """An error answer. code: as in the API reference."""

    def __init__(self, code: str, status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Call:
    """What was asked, and who signed it."""

    operation: str
    body: dict[str, Any]
    access_key: str


class Standin:
    """The running stand-in. url: where. key: a first key. calls: every call, in order."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, Key] = {}
        self.sessions: dict[str, dict[str, str]] = {}
        self.expired: set[str] = set()
        self.calls: list[Call] = []
        self._next: deque[Answer] = deque()
        self._always: Answer | None = None
        self.key = self.create_key()

    def create_key(self, key_id: str | None = None, **metadata: Any) -> Key:
        """A new key. metadata: what DescribeKey says differently from an ordinary one."""
        key = Key(metadata=metadata) if key_id is None else Key(key_id=key_id, metadata=metadata)
        self.keys[key.key_id] = key
        return key

    def uri(self, key: Key, *, region: str = REGION, role: bool = False) -> str:
        """The key URI of `key` here; role: with the role for workers."""
        uri = f"aws-kms:{key.arn(region)}?endpoint={self.url}"
        return f"{uri}&role={ROLE}&sts-endpoint={self.url}" if role else uri

    def next(self, *answers: Answer) -> None:
        """Answer the next calls with these, one each."""
        self._next.extend(answers)

    def always(self, answer: Answer | None) -> None:
        """Answer every call with this; None: in earnest again."""
        self._always = answer

    def operations(self) -> list[str]:
        """The operations that were asked, in order."""
        return [call.operation for call in self.calls]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One call, of KMS (JSON) or STS (query)."""
        target = request.headers.get("X-Amz-Target", "")
        access_key, region = self._signed(request)
        if target:
            operation, body = target.rpartition(".")[2], json.loads(await request.read())
        else:
            form = await request.post()
            operation, body = str(form["Action"]), dict(form)
        self.calls.append(Call(operation=operation, body=body, access_key=access_key))
        if self._next:
            return await self._next.popleft()(request)
        if self._always is not None:
            return await self._always(request)
        if operation == "AssumeRole":
            return self._assume(body)
        try:
            return web.json_response(self._kms(operation, body, access_key, region), content_type="application/json")
        except Refusal as refusal:
            return _refused(refusal)

    def _signed(self, request: web.Request) -> tuple[str, str]:
        scope = request.headers["Authorization"].partition("Credential=")[2].partition(",")[0].split("/")
        return scope[0], scope[2]

    def _assume(self, form: dict[str, Any]) -> web.Response:
        if form["RoleArn"] != ROLE:
            fault = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code></Error></ErrorResponse>"
            return web.Response(status=403, text=fault, content_type="text/xml")
        tags = {
            form[f"Tags.member.{index}.Key"]: form[f"Tags.member.{index}.Value"]
            for index in range(1, 51)
            if f"Tags.member.{index}.Key" in form
        }
        access_key = f"ASIA{os.urandom(8).hex().upper()}"
        self.sessions[access_key] = tags
        given = (
            f"<AccessKeyId>{access_key}</AccessKeyId><SecretAccessKey>{os.urandom(20).hex()}</SecretAccessKey>"
            f"<SessionToken>{os.urandom(20).hex()}</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration>"
        )
        text = (
            '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>'
            f"<Credentials>{given}</Credentials></AssumeRoleResult></AssumeRoleResponse>"
        )
        return web.Response(text=text, content_type="text/xml")

    def _kms(self, operation: str, body: dict[str, Any], access_key: str, region: str) -> dict[str, Any]:
        key = self._find(body["KeyId"])
        if operation == "DescribeKey":
            return {"KeyMetadata": _metadata(key, region)}
        context = json.dumps(sorted(body.get("EncryptionContext", {}).items())).encode()
        if any(not name or not value for name, value in body.get("EncryptionContext", {}).items()):
            raise Refusal("ValidationException")
        self._permit(operation, key, access_key)
        if key.state == "Disabled":
            raise Refusal("DisabledException")
        if key.state != "Enabled":
            raise Refusal("KMSInvalidStateException")
        answer = {"KeyId": key.arn(region), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}
        if operation == "Decrypt":
            return {**answer, "Plaintext": _text(self._opened(key, base64.b64decode(body["CiphertextBlob"]), context))}
        plain = base64.b64decode(body["Plaintext"]) if operation == "Encrypt" else os.urandom(body["NumberOfBytes"])
        nonce = os.urandom(12)
        blob = key.key_id.encode().ljust(ID_BYTES) + nonce + AESGCM(key.material).encrypt(nonce, plain, context)
        answer["CiphertextBlob"] = _text(blob)
        return answer if operation == "Encrypt" else {**answer, "Plaintext": _text(plain)}

    def _opened(self, key: Key, blob: bytes, context: bytes) -> bytes:
        named = self.keys.get(blob[:ID_BYTES].decode("latin-1").strip())
        if named is not None and named is not key:
            raise Refusal("IncorrectKeyException")
        if named is None or len(blob) < ID_BYTES + 12 + 16:
            raise Refusal("InvalidCiphertextException")
        try:
            return AESGCM(key.material).decrypt(blob[ID_BYTES:][:12], blob[ID_BYTES + 12 :], context)
        except InvalidTag:
            raise Refusal("InvalidCiphertextException") from None

    def _find(self, name: str) -> Key:
        key = self.keys.get(name.rpartition("/")[2])
        if key is None:
            raise Refusal("NotFoundException")
        return key

    def _permit(self, operation: str, key: Key, access_key: str) -> None:
        if access_key in self.expired:
            raise Refusal("ExpiredTokenException")
        if not access_key.startswith("ASIA"):
            return
        tags = self.sessions[access_key]
        named = tags["worker"] in key.workers or any(f":{group}:" in tags["groups"] for group in key.groups)
        if operation != "Decrypt" or not named:
            raise Refusal("AccessDeniedException")


def _metadata(key: Key, region: str) -> dict[str, Any]:
    return {
        "KeyId": key.key_id,
        "Arn": key.arn(region),
        "KeyState": "Enabled",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "KeyUsage": "ENCRYPT_DECRYPT",
        "Origin": "AWS_KMS",
        "MultiRegion": False,
        **key.metadata,
    }


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _refused(refusal: Refusal) -> web.Response:
    body = json.dumps({"__type": refusal.code, "message": "said by the stand-in"})
    return web.Response(status=refusal.status, text=body, content_type="application/x-amz-json-1.1")


def refuses(code: str, status: int = 400) -> Answer:
    """An error answer with this code."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return _refused(Refusal(code, status))

    return answer


def says(body: bytes, status: int = 200, **headers: str) -> Answer:
    """This body, whatever was asked."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={"Content-Type": "application/json", **headers})

    return answer


async def floods(request: web.Request) -> web.StreamResponse:
    """A body without a length, and without an end until the reader leaves."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 65_536)


async def hangs_up(request: web.Request) -> web.StreamResponse:
    """The connection is cut instead of an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def waits(request: web.Request) -> web.StreamResponse:
    """No answer, until the caller leaves."""
    await asyncio.Event().wait()
    return web.Response()


@asynccontextmanager
async def standing(tls: ssl.SSLContext | None = None) -> AsyncIterator[Standin]:
    """The stand-in on a free port of 127.0.0.1, in this event loop."""
    standin = Standin()
    application = web.Application()
    application.router.add_post("/", standin.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        port = runner.addresses[0][1]
        standin.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        yield standin
    finally:
        await runner.cleanup()


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """TLS for 127.0.0.1 with a certificate that signs itself, and the file that holds it as a CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stand-in")])
    present = datetime.datetime.now(datetime.UTC)  # noqa: TID251 - TLS libraries look at the real clock
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(present - datetime.timedelta(minutes=5))
        .not_valid_after(present + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    authority = folder / "ca.pem"
    authority.write_bytes(made.public_bytes(Encoding.PEM))
    both = folder / "server.pem"
    both.write_bytes(
        made.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context, authority
