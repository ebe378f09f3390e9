"""What the answers of AWS, and its silence, mean as errors of `kms.errors`: the only translation.

Sources: the API references of AWS KMS and AWS STS, "Errors" and "Common Errors".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - the SDK's own, which is no OSError
    CredentialRetrievalError,
    HTTPClientError,
    MetadataRetrievalError,
    NoCredentialsError,
    SSLError,
)

from kms.aws.http import ANSWER_BYTES_MAX, Oversized, Redirected
from kms.errors import BadKey, Corrupt, Denied, Disabled, KmsError, Unavailable

_TRY_LATER = "the same call may succeed later"
_THROTTLED = "it throttles; lower kms.rate_per_s, or raise the account's quota"
_NOT_ALLOWED = "check the key policy and the IAM policies of the broker's role (and of the role in `role`)"
_NOT_KNOWN = "check the credentials that the SDK finds, and this machine's clock"
_ANSWERS: Mapping[str, tuple[type[KmsError], str]] = {
    **dict.fromkeys(
        (
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "RequestThrottled",
            "RequestThrottledException",
            "RequestLimitExceeded",
            "LimitExceeded",
            "LimitExceededException",
            "TooManyRequestsException",
            "BandwidthLimitExceeded",
            "SlowDown",
        ),
        (Unavailable, _THROTTLED),
    ),
    **dict.fromkeys(
        (
            "KMSInternalException",
            "DependencyTimeoutException",
            "KeyUnavailableException",
            "InternalFailure",
            "InternalError",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "RequestTimeout",
            "RequestTimeoutException",
            "IDPCommunicationError",
        ),
        (Unavailable, _TRY_LATER),
    ),
    **dict.fromkeys(("AccessDenied", "AccessDeniedException", "InvalidGrantTokenException"), (Denied, _NOT_ALLOWED)),
    **dict.fromkeys(
        (
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "ExpiredTokenException",
        ),
        (Denied, _NOT_KNOWN),
    ),
    "DisabledException": (Disabled, "the key is disabled; enable it, or take another key of the keyring"),
    "KMSInvalidStateException": (Disabled, "the key's state forbids it (pending deletion or import); look at the key"),
    "NotFoundException": (Disabled, "there is no such key or alias in this account and region"),
    "InvalidCiphertextException": (Corrupt, "the wrapped key was changed, or belongs to another context"),
    "IncorrectKeyException": (Corrupt, "the wrapped key belongs to another KMS key"),
    "InvalidKeyUsageException": (BadKey, "take a key with the usage ENCRYPT_DECRYPT"),
    "InvalidArnException": (BadKey, "its ARN is wrong"),
}
_CREDENTIALS_SILENT = "the source of its credentials does not answer; check the instance role or web identity"
_FAILURES: tuple[tuple[type[Exception], type[KmsError], str], ...] = (
    (Oversized, Corrupt, f"its answer has more than {ANSWER_BYTES_MAX} bytes; check the option endpoint"),
    (Redirected, Denied, "it answered with a redirect (HTTP {cause}), and none is followed; check the option endpoint"),
    (SSLError, Unavailable, "its TLS certificate is not trusted; give the CA in AWS_CA_BUNDLE, or mend the endpoint"),
    (
        NoCredentialsError,
        Denied,
        "the SDK found no credentials; give the broker a role, a profile or AWS_ACCESS_KEY_ID",
    ),
    (CredentialRetrievalError, Unavailable, _CREDENTIALS_SILENT),
    (MetadataRetrievalError, Unavailable, _CREDENTIALS_SILENT),
)


@contextmanager
def translating() -> Iterator[None]:
    """Within this block whatever the SDK raises leaves as an error of `kms.errors`.

    Texts of AWS stay in the cause, for nobody knows what a server repeats in them.
    """
    try:
        yield
    except KmsError:
        raise
    except ClientError as error:
        raise _of_answer(error) from error
    except Exception as error:
        raise _of_silence(error) from error


def _of_answer(error: Any) -> KmsError:
    """What an error answer means. Its code decides before its status: AWS throttles with 400."""
    code, asked = str(error.response.get("Error", {}).get("Code", "")), error.operation_name
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _ANSWERS:
        kind, remedy = _ANSWERS[code]
        return kind(f"{asked} was answered with {code}: {remedy}")
    if status >= 500 or status == 429:
        return Unavailable(f"{asked} was answered with HTTP {status}: {_TRY_LATER}")
    named = code if re.fullmatch(r"[A-Za-z][A-Za-z.]{0,63}", code) else "an unreadable error"
    return Denied(f"{asked} was answered with {named} (HTTP {status}), which is not known; look it up in CloudTrail")


def _of_silence(error: Exception) -> KmsError:
    """What it means that there was no answer, or none that the SDK could read."""
    cause = error.kwargs.get("error") if isinstance(error, BotoCoreError) else None
    for failure, kind, text in _FAILURES:
        if isinstance(error, failure) or isinstance(cause, failure):
            return kind(text.format(cause=cause))
    if isinstance(error, ConnectionError | HTTPClientError) and _is_of_the_network(error, cause):
        return Unavailable(f"no answer ({type(cause or error).__name__}); check the network and the endpoint")
    return Denied(f"the SDK could not read its answer ({type(error).__name__}); check the option endpoint")


def _is_of_the_network(error: Exception, cause: object) -> bool:
    if isinstance(cause, aiohttp.ClientResponseError):
        return False  # Somebody answered, and not in HTTP.
    # The SDK calls whatever it does not know an HTTPClientError, bugs included; what it knows is a subclass.
    return type(error) is not HTTPClientError or isinstance(cause, aiohttp.ClientError | OSError)
