"""Clients of AWS's services for one call of an adapter, and what their errors mean. Which calls, adapters know.

Endpoints come from the policy or from the SDK's own tables, never from the environment. Nothing is tried twice here:
a key that was made twice would be one that nobody knows.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Annotated, Any

import aiohttp
import msgspec
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - the SDK's own, which is no OSError
    CredentialRetrievalError,
    HTTPClientError,
    MetadataRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    SSLError,
)
from botocore.loaders import create_loader

from broker.secret import Secret
from broker.upstream.destinations import allowed_url
from broker.upstream.errors import BadSettings, Failed, Refused, Unreachable, UpstreamError
from broker.upstream.port import Site, Work
from broker.upstream.terms import Terms

CREDENTIAL = "access_key"
"""The credential that adapters sign with: a `ProcessCredentials` document. Without it, what the SDK finds."""
CONNECT_S = 3.0
ANSWER_S = 10.0
"""The longest wait for a connection, and for an answer."""

KeyId = Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9]{16,128}\Z")]
SecretKey = Annotated[str, msgspec.Meta(pattern=r"^[\x21-\x7e]{1,256}\Z")]


class AwsTerms(Terms, frozen=True, kw_only=True):
    """Settings for reaching AWS. endpoint: another server than AWS's own, for every service."""

    region: Annotated[str, msgspec.Meta(pattern=r"^[a-z]{2}(-[a-z0-9]+){1,4}\Z")] = "us-east-1"
    endpoint: str = ""


class ProcessCredentials(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """An access key as AWS's tools read it from a `credential_process`: the form of values and of the credential."""

    version: int
    access_key_id: KeyId
    secret_access_key: SecretKey
    session_token: str = ""
    expiration: str = ""

    def __repr__(self) -> str:
        return f"ProcessCredentials({self.access_key_id})"


CONTENT_TYPE = "application/json"
"""Of values that are such documents."""


def write_key(key: ProcessCredentials) -> Secret:
    """The document, as a value."""
    return Secret(msgspec.json.encode(key))


def read_key(document: Secret) -> ProcessCredentials | None:
    """The access key in a value; None: it is no such document."""
    try:
        return msgspec.json.decode(document.reveal(), type=ProcessCredentials)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def signing_key(work: Work) -> ProcessCredentials | None:
    """What the policy has calls signed with; None: what the SDK finds in the broker's surroundings. BadSettings."""
    held = work.credentials.get(CREDENTIAL)
    if held is None:
        return None
    key = read_key(held)
    if key is None:
        raise BadSettings(
            f'the credential {CREDENTIAL} must hold {{"Version": 1, "AccessKeyId": "…", "SecretAccessKey": "…"}}'
        )
    return key


@cache
def _tables() -> Any:
    """What AWS's services look like, which the SDK reads from large files. Once: it takes 50 ms, for which nobody else
    is served, and a value for each lease is many. Where `AWS_DATA_PATH` leads plays no part.
    """
    return create_loader()


def open_sdk() -> AioSession:
    """The SDK, for as long as an adapter is open."""
    for library in ("botocore", "aiobotocore"):
        # At DEBUG they log whole requests and answers, and those hold keys; at INFO, what nobody asked.
        logging.getLogger(library).setLevel(logging.WARNING)
    sdk = AioSession()
    sdk.register_component("data_loader", _tables())
    return sdk


@asynccontextmanager
async def open_client(
    sdk: AioSession, service: str, terms: AwsTerms, key: ProcessCredentials | None, *, site: Site
) -> AsyncIterator[Any]:
    """A client of `service`, signing with `key`; within the block the SDK's errors become `broker.upstream.errors`.

    BadSettings: also an endpoint that the configuration does not allow.
    """
    check_endpoint(terms, site)
    # A proxy of the environment may carry TLS; what is in the clear stays on this machine.
    in_the_clear = terms.endpoint.startswith("http:")
    config = AioConfig(
        connect_timeout=CONNECT_S,
        read_timeout=ANSWER_S,
        retries={"total_max_attempts": 1},
        ignore_configured_endpoint_urls=True,
        proxies={} if in_the_clear else None,
    )
    signing = {}
    if key is not None:
        signing = {
            "aws_access_key_id": key.access_key_id,
            "aws_secret_access_key": key.secret_access_key,
            "aws_session_token": key.session_token or None,
        }
    with translating():
        async with sdk.create_client(
            service, region_name=terms.region, endpoint_url=terms.endpoint or None, config=config, **signing
        ) as client:
            yield client


def check_endpoint(terms: AwsTerms, site: Site) -> None:
    """Return if the endpoint can be used; AWS's own always can. BadSettings: it cannot."""
    if terms.endpoint:
        allowed_url("endpoint", terms.endpoint, allowed=site.hosts)


def code_of(error: Exception) -> str:
    """The error code of an answer; empty for any other error."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


@contextmanager
def translating() -> Iterator[None]:
    """Within this block the SDK's errors become `broker.upstream.errors`. What AWS wrote beside the code is left out.

    BadSettings: AWS does not know who asks. Refused: it does, and says no. Unreachable: it cannot serve now, or there
    was no answer. Failed: the SDK cannot read the answer.
    """
    try:
        yield
    except ClientError as error:
        raise _of_answer(error) from None
    except BotoCoreError as error:
        raise _of_silence(error) from None
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unreachable(f"AWS does not answer ({type(error).__name__}); it will be tried again") from None


_SIGNED_WRONG = f"check the credential {CREDENTIAL}, and this machine's clock"
_LATER = "it will be tried again"
_ANSWERS: Mapping[str, tuple[type[UpstreamError], str]] = {
    **dict.fromkeys(
        (
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "InvalidSignatureException",
            "IncompleteSignature",
            "ExpiredToken",
            "ExpiredTokenException",
            "RequestExpired",
        ),
        (BadSettings, _SIGNED_WRONG),
    ),
    **dict.fromkeys(
        (
            "Throttling",
            "ThrottlingException",
            "RequestLimitExceeded",
            "TooManyRequestsException",
            "ServiceFailure",
            "ServiceUnavailable",
            "InternalFailure",
            "InternalError",
            "RequestTimeout",
            "ConcurrentModification",
            "EntityTemporarilyUnmodifiable",
            "IDPCommunicationError",
        ),
        (Unreachable, _LATER),
    ),
    **dict.fromkeys(
        ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"),
        (Refused, "allow it in the IAM policy of who asks"),
    ),
    "NoSuchEntity": (Refused, "there is no such user, role or key; check the settings"),
    "LimitExceeded": (Refused, "a quota of the account or of the user is used up; delete what is not needed"),
    "ValidationError": (BadSettings, "check the settings"),
    "MalformedPolicyDocument": (BadSettings, "check the policy in the settings"),
    "PackedPolicyTooLarge": (BadSettings, "the policy and the tags together are too large; make them smaller"),
    "RegionDisabledException": (BadSettings, "STS is switched off in this region; check the setting region"),
}


def _of_answer(error: Any) -> UpstreamError:
    code, asked = code_of(error), error.operation_name
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _ANSWERS:
        kind, remedy = _ANSWERS[code]
        return kind(f"AWS answered {asked} with {code}; {remedy}")
    if status >= 500 or status == 429:
        return Unreachable(f"AWS answered {asked} with status {status}; {_LATER}")
    named = code if re.fullmatch(r"[A-Za-z][A-Za-z.]{0,63}", code) else "an unreadable error"
    return Refused(f"AWS answered {asked} with {named} (status {status}); look it up in CloudTrail")


def _of_silence(error: BotoCoreError) -> UpstreamError:
    # What stands in the SDK's own texts nobody knows, so that the type alone is told.
    for kinds, meaning, text in _FAILURES:
        if isinstance(error, kinds):
            return meaning(text.format(kind=type(error).__name__))
    return Failed(f"the SDK could not do it ({type(error).__name__}); check the settings region and endpoint")


_FAILURES: tuple[tuple[tuple[type[Exception], ...], type[UpstreamError], str], ...] = (
    (
        (NoCredentialsError,),
        BadSettings,
        f"there is nothing to sign with; give the credential {CREDENTIAL}, or the broker a role",
    ),
    ((ParamValidationError,), BadSettings, "the SDK takes no such settings; check them"),
    ((SSLError,), Refused, "the certificate of AWS is not trusted; check the setting endpoint"),
    (
        (ConnectionError, HTTPClientError, CredentialRetrievalError, MetadataRetrievalError),
        Unreachable,
        f"AWS does not answer ({{kind}}); {_LATER}",
    ),
)
