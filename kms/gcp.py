"""Google Cloud KMS: one symmetric CryptoKey as a Kms, over gRPC with the SDK's asyncio client.

In this order: what the URI says, what Google's errors mean, the login, the adapter. How to set a key up is in
docs/howto/google-cloud-kms.md. Retries, pacing and caching are the broker's; the SDK's own are off. There is no
redirect to follow or to refuse: gRPC knows none, and an HTTP redirect in its place is an unknown status, so Denied.
One file of this length, so that all that is known of Google is known in one place.

What Google's errors look like is taken from its public API reference and its own clients, for this adapter was tested
against a stand-in made from them and not yet against the cloud. Where only Google's wording tells two cases apart,
another wording makes it Denied.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google.auth
import google_crc32c
import grpc.aio
from cryptography.x509 import load_pem_x509_certificates
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.transport.requests import Request
from google.cloud import kms_v1
from google.cloud.kms_v1.services.key_management_service.transports import grpc_asyncio

from kms.bounds import check_blob, check_context, check_key
from kms.errors import BadKey, Corrupt, Denied, Disabled, KmsError, Unavailable
from kms.framing import framed_context
from kms.key_uri import is_loopback, split_uri
from kms.naming import naming, unread
from kms.port import KEY_BYTES, Caller, Description, Kms, Wrap

SCHEME = "gcp-kms"
EXAMPLE = "gcp-kms:projects/P/locations/L/keyRings/R/cryptoKeys/K"
HOST = "cloudkms.googleapis.com:443"
SCOPES = ("https://www.googleapis.com/auth/cloudkms",)
CALL_TIMEOUT_S = 1.8
"""How long a call may take, its login included: under the 2 s that the broker waits."""
LOGIN_TIMEOUT_S = 5.0
"""How long one request for an access token may take. It outlives the call that started it, and serves the next."""
ANSWER_BYTES_MAX = 64 * 1024
"""Largest answer. A wrap has some 150 bytes; a key's description, with the attestation of an HSM, some 20 kB."""
CA_BYTES_MAX = 1024 * 1024
"""Largest file of certificates that is read."""
IN_THE_CLEAR = "an endpoint here without ca-file: keys pass in the clear to whatever listens there; it is for tests"
LABEL = b"tokenbroker/gcp-kms/v1"
"""First field of the authenticated data (docs/spec/kms-gcp.md), so that nothing else this key encrypted is a wrap."""

_NAME = re.compile(
    r"projects/[a-z0-9][a-z0-9.:-]{0,99}/locations/[a-z0-9-]{1,63}"
    r"/keyRings/[a-zA-Z0-9_-]{1,63}/cryptoKeys/[a-zA-Z0-9_-]{1,63}",
    re.ASCII,
)
_ENDPOINT = re.compile(r"([a-zA-Z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]):([0-9]{1,5})", re.ASCII)
_CHECK_CONTEXT = {"purpose": "check"}
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", ANSWER_BYTES_MAX),
    ("grpc.max_send_message_length", ANSWER_BYTES_MAX),
    ("grpc.enable_retries", 0),
    # Left alone, a channel that lost its server tries again after up to two minutes, and waits 20 s for a connection.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A connection that a firewall forgot is noticed while it is used, not after TCP's quarter of an hour.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)

_KeyPurpose = kms_v1.CryptoKey.CryptoKeyPurpose
_Algorithm = kms_v1.CryptoKeyVersion.CryptoKeyVersionAlgorithm
_State = kms_v1.CryptoKeyVersion.CryptoKeyVersionState
_Level = kms_v1.ProtectionLevel
_HARDWARE = (_Level.HSM, _Level.HSM_SINGLE_TENANT)
_ELSEWHERE = (_Level.EXTERNAL, _Level.EXTERNAL_VPC)


@dataclass(frozen=True, kw_only=True, slots=True)
class GcpUri:
    """What `gcp-kms:NAME?endpoint=HOST:PORT&ca-file=PATH` says. ca_file: the only CAs that are trusted then."""

    name: str
    endpoint: str
    loopback: bool
    ca_file: Path | None

    @property
    def plain(self) -> bool:
        """Whether to speak without TLS, and therefore without a login: with a stand-in on this machine, for tests."""
        return self.loopback and self.ca_file is None


def parse_uri(uri: str) -> GcpUri:
    """Read `uri`. BadKey: no resource name of a CryptoKey, an unknown option, an endpoint that is not HOST:PORT."""
    name, options = split_uri(uri, scheme=SCHEME, example=EXAMPLE, options=("endpoint", "ca-file"))
    if "/cryptoKeyVersions/" in name:
        raise BadKey("name the key and not one of its versions: Google wraps with the primary one and finds the others")
    if not _NAME.fullmatch(name):
        raise BadKey(f"not the resource name of a CryptoKey; a URI reads like {EXAMPLE}")
    endpoint = options.get("endpoint", HOST)
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or not 0 < int(match[2]) < 65536:
        raise BadKey("the option endpoint reads HOST:PORT, without https:// and without a path")
    ca_file = Path(options["ca-file"]).absolute() if "ca-file" in options else None
    return GcpUri(name=name, endpoint=endpoint, loopback=is_loopback(match[1]), ca_file=ca_file)


_LATER = (Unavailable, "Google Cloud KMS does not answer now; the same call may succeed later")
_REFUSED = (
    Denied,
    "Google refuses this call; grant the broker's account roles/cloudkms.cryptoKeyEncrypterDecrypter on this key",
)
_MEANINGS: Mapping[grpc.StatusCode | None, tuple[type[KmsError], str]] = {
    grpc.StatusCode.UNAVAILABLE: _LATER,
    grpc.StatusCode.DEADLINE_EXCEEDED: _LATER,
    grpc.StatusCode.RESOURCE_EXHAUSTED: _LATER,
    grpc.StatusCode.ABORTED: _LATER,
    grpc.StatusCode.INTERNAL: _LATER,
    grpc.StatusCode.PERMISSION_DENIED: _REFUSED,
    grpc.StatusCode.UNAUTHENTICATED: _REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION: (
        Disabled,
        "the key's version is disabled, destroyed or to be destroyed; enable or restore it",
    ),
    grpc.StatusCode.NOT_FOUND: (
        Disabled,
        "there is no such key, or its version is gone; look at its name, location and key ring",
    ),
}
"""What a status means, where no text tells more. What is not listed is Denied: it must never count as "try later"."""


@contextmanager
def _translated(*, unwrapping: bool = False) -> Iterator[None]:
    """Within this block, what Google's libraries raise leaves as an error of `kms.errors`, with its cause.

    Google's text stays in the cause: nobody knows what it holds.
    """
    try:
        yield
    except TimeoutError as error:
        raise Unavailable(f"no answer within {CALL_TIMEOUT_S:g} s; the same call may succeed later") from error
    except auth.GoogleAuthError as error:
        raise _login_failure(error) from error
    except api.GoogleAPICallError as error:
        raise _call_failure(error, unwrapping=unwrapping) from error


def _login_failure(error: auth.GoogleAuthError) -> KmsError:
    # On a machine of Google's, a metadata server that did not answer is a RefreshError caused by a TransportError; one
    # that answered no is the same, with its response as second argument.
    root = error.__cause__ if isinstance(error.__cause__, auth.TransportError) else error
    if error.retryable or (isinstance(root, auth.TransportError) and len(root.args) < 2):
        return Unavailable("Google's login does not answer; the same call may succeed later")
    if isinstance(error, auth.DefaultCredentialsError):
        return Denied(
            "no usable Google credentials: attach a service account to the machine, or name a credentials file in"
            " GOOGLE_APPLICATION_CREDENTIALS"
        )
    return Denied("Google refuses the login: renew the broker's credentials, and look whether its account is enabled")


def _call_failure(error: api.GoogleAPICallError, *, unwrapping: bool) -> KmsError:
    text = error.message or ""
    match error.grpc_status_code:
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in text:
            # Said by gRPC on our side, not by Google: no quota was exceeded.
            return Corrupt(f"it answered with more than {ANSWER_BYTES_MAX} bytes, so it is not Google Cloud KMS")
        case grpc.StatusCode.UNAVAILABLE if "CERTIFICATE_VERIFY_FAILED" in text:
            # Counted as a cut line: were it a refusal, whoever can divert the line could also wipe the broker's caches.
            return Unavailable(
                "the certificate of the endpoint is not from a trusted CA, or names another host: look at the options"
                " endpoint and ca-file, and at who answers on this network"
            )
        case grpc.StatusCode.INVALID_ARGUMENT if "checksum in field" in text:
            return Unavailable("the request was changed on its way (CRC32C); the same call may succeed later")
        case grpc.StatusCode.INVALID_ARGUMENT if unwrapping and text.startswith("Decryption failed"):
            return Corrupt()
        case grpc.StatusCode.INVALID_ARGUMENT if not unwrapping:
            # All of the request is ours and checked but the key, so it is the key that does not fit.
            return BadKey(
                "Google cannot encrypt with it: look at its name and location; its purpose is ENCRYPT_DECRYPT"
            )
        case code:
            kind, meaning = _MEANINGS.get(
                code, (Denied, "nobody expects this answer: look at who answers at the endpoint")
            )
            return kind(f"{code.name if code else 'no status'}: {meaning}")


class _Login:
    """Access tokens of the broker's Google account, found and renewed as Google's library does, off the event loop.

    Not left to the channel, which turns each failed login into UNAVAILABLE. One renewal runs at a time; who waits for
    it may be cancelled, and it goes on.
    """

    def __init__(self) -> None:
        self._credentials: Any = None
        self._renewal: asyncio.Future[None] | None = None

    async def metadata(self) -> list[tuple[str, str]]:
        """The headers that carry the token. Raises GoogleAuthError."""
        if self._credentials is None or not self._credentials.valid:
            if self._renewal is None or self._renewal.done():
                self._renewal = asyncio.get_running_loop().run_in_executor(None, self._renew)
            await asyncio.shield(self._renewal)
        headers: dict[str, str] = {}
        self._credentials.apply(headers)
        return list(headers.items())

    def _renew(self) -> None:
        credentials = self._credentials
        if credentials is None:
            credentials, _ = google.auth.default(scopes=SCOPES)
        request = Request()
        credentials.refresh(functools.partial(request, timeout=LOGIN_TIMEOUT_S))
        self._credentials = credentials


@asynccontextmanager
async def open_gcp(uri: str) -> AsyncIterator[Kms]:
    """Open the CryptoKey that `uri` names (see `GcpUri`); its channel is connected here and closed at the end.

    BadKey: the URI or its ca-file is wrong, or the key is not a symmetric one for encryption. A key that does not
    answer, refuses, is disabled or answers nonsense opens all the same, and each call says so: others may serve.
    """
    with naming(unread(uri)):
        where = parse_uri(uri)
    # At DEBUG, they log each request with its plaintext and each answer, and what the broker logs in with.
    for library in (grpc_asyncio.__name__, google.auth.__name__):
        logging.getLogger(library).setLevel(logging.INFO)
    with naming(uri):
        channel = await _channel(where)
    async with channel:
        # Given a channel, the transport adds no credentials of its own; the token travels as metadata of each call.
        transport = grpc_asyncio.KeyManagementServiceGrpcAsyncIOTransport(channel=channel)
        client = kms_v1.KeyManagementServiceAsyncClient(transport=transport)
        kms = GcpKms(uri=uri, name=where.name, client=client, login=None if where.plain else _Login())
        # What cannot be seen now, or not by this account, shows when the key wraps.
        with suppress(Unavailable, Denied, Corrupt):
            await kms.look()
        yield kms


async def _channel(where: GcpUri) -> grpc.aio.Channel:
    if where.plain:
        # A proxy, which the environment may name, is no part of this machine.
        options = (*_CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0))
        return grpc.aio.insecure_channel(where.endpoint, options=options)
    roots = await asyncio.to_thread(_read_roots, where.ca_file) if where.ca_file is not None else None
    credentials = grpc.ssl_channel_credentials(root_certificates=roots)
    return grpc.aio.secure_channel(where.endpoint, credentials, options=_CHANNEL_OPTIONS)


def _read_roots(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            roots = file.read(CA_BYTES_MAX + 1)
        if len(roots) > CA_BYTES_MAX:
            raise BadKey(f"the ca-file {path} has more than {CA_BYTES_MAX} bytes; give the CAs of the endpoint alone")
        load_pem_x509_certificates(roots)
    except OSError as error:
        raise BadKey(f"the ca-file {path} cannot be read ({error.strerror}); make it readable to the broker") from error
    except ValueError as error:
        raise BadKey(f"the ca-file {path} holds no certificates in PEM; give the CAs of the endpoint") from error
    return roots


class GcpKms:
    """One CryptoKey. Wraps with its primary version; unwraps with whatever version wrapped, as long as it is enabled.

    The context travels as additional authenticated data, laid out as docs/spec/kms-gcp.md says. CRC32C sums are sent
    and compared both ways as Google's data integrity guide says; a difference is Unavailable, for the guide takes it
    for damage on the way and says to try again.
    """

    def __init__(
        self, *, uri: str, name: str, client: kms_v1.KeyManagementServiceAsyncClient, login: _Login | None
    ) -> None:
        self._uri = uri
        self._name = name
        self._version_name = re.compile(re.escape(name) + r"/cryptoKeyVersions/([0-9]{1,19})", re.ASCII)
        self._client = client
        self._login = login

    def __repr__(self) -> str:
        return f"GcpKms({self._uri!r})"

    @property
    def uri(self) -> str:
        """As the port says."""
        return self._uri

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        """As the port says. Disabled: the primary version is. Corrupt: it answered with what is no wrap by this key."""
        with naming(self._uri):
            check_key(key)
            return (await self._encrypt(key, check_context(context, or_raise=BadKey)))[0]

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        """As the port says. Denied: any caller. Disabled: the version that wrapped is."""
        with naming(self._uri):
            check_blob(wrap.blob)
            asked = check_context(context, or_raise=Corrupt)
            if caller is not None:
                # Google decides by the account that calls, which is the broker's; IAM conditions cannot see a worker.
                raise Denied('Google Cloud KMS cannot decide per worker: set authorize = "broker" for this keyring')
            return await self._decrypt(wrap.blob, asked)

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        """As the port says.

        The key is made here: Google's GenerateRandomBytes gives no wrapped key, so that it would cost a second call
        and a second journey of the plaintext, for randomness that the kernel gives as well.
        """
        key = os.urandom(KEY_BYTES)
        return key, await self.wrap(key, context)

    async def check(self) -> None:
        """As the port says, for the primary version."""
        with naming(self._uri):
            await self._round_trip()

    async def describe(self) -> Description:
        """As the port says; state is that of the primary version, and says when the key rotates next.

        Needs roles/cloudkms.viewer on the key. Without it, a warning says so, and a round trip decides.
        """
        try:
            key, doomed = await self.look(), await self._doomed()
        except Disabled:
            raise
        except Denied:
            return await self._describe_unseen()
        version = _last(key.primary.name)
        level = key.primary.protection_level
        state = _said(key.primary.state).lower()
        rotates = f", rotates next on {key.next_rotation_time:%Y-%m-%d}" if key.next_rotation_time else ""
        warnings = [*self._in_the_clear(), *doomed]
        if key.primary.state != _State.ENABLED:
            warnings.append(f"version {version}, which wraps, is {state}: enable it, or make another one primary")
        if not rotates:
            warnings.append("no rotation is scheduled; set one with: gcloud kms keys update --rotation-period")
        if level in _ELSEWHERE:
            warnings.append("the key is kept by an external manager: when that is down, so is this key")
        return _description(version=version, level=level, state=state + rotates, warnings=warnings)

    async def look(self) -> Any:
        """The CryptoKey as Google shows it. BadKey: not for symmetric encryption, or known by another name."""
        with naming(self._uri):
            key = await self._call(self._client.get_crypto_key, kms_v1.GetCryptoKeyRequest(name=self._name))
            if key.name != self._name:
                raise BadKey("Google knows it by another name; write it as `gcloud kms keys describe` shows it")
            algorithm = key.primary.algorithm or key.version_template.algorithm
            if key.purpose != _KeyPurpose.ENCRYPT_DECRYPT or algorithm != _Algorithm.GOOGLE_SYMMETRIC_ENCRYPTION:
                raise BadKey(
                    f"a key for {_said(key.purpose)}, {_said(algorithm)} cannot wrap; create one"
                    " with --purpose=encryption"
                )
            return key

    async def _doomed(self) -> list[str]:
        """A warning for each version that will be destroyed, the first ten: what it wrapped is lost with it."""
        with naming(self._uri):
            request = kms_v1.ListCryptoKeyVersionsRequest(
                parent=self._name, filter="state=DESTROY_SCHEDULED", page_size=10
            )
            page = await self._call(self._client.list_crypto_key_versions, request)
            return [
                f"version {_last(version.name)} will be destroyed on {version.destroy_time:%Y-%m-%d}: run"
                " `tokenbroker key rewrap` before that, or restore it"
                for version in list(page.crypto_key_versions)[:10]
            ]

    async def _describe_unseen(self) -> Description:
        with naming(self._uri):
            version, level = await self._round_trip()
        unseen = (
            "the broker may not look at this key: whether it rotates or is to be destroyed is not known; grant"
            " roles/cloudkms.viewer on the key"
        )
        return _description(version=version, level=level, state="enabled", warnings=[*self._in_the_clear(), unseen])

    def _in_the_clear(self) -> tuple[str, ...]:
        return () if self._login is not None else (IN_THE_CLEAR,)

    async def _round_trip(self) -> tuple[str, int]:
        """The version that wrapped and its protection level. Raises what wrap and unwrap raise."""
        sample = os.urandom(KEY_BYTES)
        wrap, level = await self._encrypt(sample, _CHECK_CONTEXT)
        if await self._decrypt(wrap.blob, _CHECK_CONTEXT) != sample:
            raise Corrupt("the key does not open what it wrapped")
        return wrap.key_version, level

    async def _encrypt(self, key: bytes, context: Mapping[str, str]) -> tuple[Wrap, int]:
        """The wrap, and the protection level of the version that made it."""
        aad = framed_context(LABEL, context=context)
        request = kms_v1.EncryptRequest(
            name=self._name,
            plaintext=key,
            plaintext_crc32c=google_crc32c.value(key),
            additional_authenticated_data=aad,
            additional_authenticated_data_crc32c=google_crc32c.value(aad),
        )
        answer = await self._call(self._client.encrypt, request)
        if not (answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c):
            raise Unavailable("it did not compare the checksums of the request; the same call may succeed later")
        _compare(answer.ciphertext, answer.ciphertext_crc32c)
        version = self._version_name.fullmatch(answer.name)
        if version is None:
            raise Corrupt("it answered in the name of another key; look at who answers at the endpoint")
        check_blob(answer.ciphertext)
        return Wrap(key_version=version[1], blob=answer.ciphertext), answer.protection_level

    async def _decrypt(self, blob: bytes, context: Mapping[str, str]) -> bytes:
        aad = framed_context(LABEL, context=context)
        request = kms_v1.DecryptRequest(
            name=self._name,
            ciphertext=blob,
            ciphertext_crc32c=google_crc32c.value(blob),
            additional_authenticated_data=aad,
            additional_authenticated_data_crc32c=google_crc32c.value(aad),
        )
        answer = await self._call(self._client.decrypt, request, unwrapping=True)
        _compare(answer.plaintext, answer.plaintext_crc32c)
        if len(answer.plaintext) != KEY_BYTES:
            raise Corrupt(
                f"it opened to something that is not a key of {KEY_BYTES} bytes, so the broker did not wrap it"
            )
        plaintext: bytes = answer.plaintext
        return plaintext

    async def _call(self, method: Callable[..., Awaitable[Any]], request: Any, *, unwrapping: bool = False) -> Any:
        with _translated(unwrapping=unwrapping):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                metadata = await self._login.metadata() if self._login is not None else []
                answer = await method(request, retry=None, timeout=CALL_TIMEOUT_S, metadata=metadata)
        if answer is None:
            # What gRPC gives for bytes that are no message of this kind.
            raise Corrupt("its answer is no message of Google Cloud KMS; look at who answers at the endpoint")
        return answer


def _compare(data: bytes, crc32c: int | None) -> None:
    """Return if `crc32c` is the sum of `data`. Unavailable: it is not, or none was given."""
    if crc32c is None or crc32c != google_crc32c.value(data):
        raise Unavailable("its answer was changed on its way (CRC32C); the same call may succeed later")


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _said(value: int) -> str:
    """The name of an enumerated value; its number, if Google knows more values than the library."""
    return str(getattr(value, "name", value))


def _description(*, version: str, level: int, state: str, warnings: list[str]) -> Description:
    return Description(
        provider=f"Google Cloud KMS ({_said(level)})",
        state=state,
        key_version=version,
        hsm=level in _HARDWARE,
        warnings=tuple(warnings),
    )
