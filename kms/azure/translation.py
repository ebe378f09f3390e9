"""Every error of Azure, as an error of `kms.errors`: the service's refusals, and what its SDK raises."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.rest import AsyncHttpResponse

from kms.errors import BadKey, Corrupt, Denied, Disabled, KmsError, Unavailable

_CODE = re.compile(r"[0-9A-Za-z]{1,64}", re.ASCII)
_ENTRA_CODE = re.compile(r"AADSTS[0-9]{1,12}", re.ASCII)
_UNUSABLE = ("KeyDisabled", "KeyExpired", "KeyNotYetValid")
_NO_ANSWER = (ServiceRequestError, ServiceResponseError, IncompleteReadError, TimeoutError)


class _Code(msgspec.Struct, frozen=True):
    code: str = ""
    innererror: _Code | None = None


class _Failure(msgspec.Struct, frozen=True):
    error: _Code


def refusal(response: AsyncHttpResponse, path: str) -> KmsError:
    """What an answer other than 200 means."""
    status = response.status_code
    try:
        error = msgspec.json.decode(response.content, type=_Failure).error
    except msgspec.DecodeError:
        error = _Code()
    inner = error.innererror.code if error.innererror else ""
    codes = "/".join(code for code in (error.code, inner) if _CODE.fullmatch(code))
    said = f"the vault answers {status}{f' ({codes})' if codes else ''}"
    if _is_later(status):
        return Unavailable(f"{said}; the same call may succeed later")
    if status in (404, 409) or inner in _UNUSABLE:
        return Disabled(f"{said}: the key, or this version of it, is disabled or gone; enable or recover it")
    if status == 400 and path.endswith("/unwrapkey"):
        return Corrupt(f"{said}: it cannot open this blob, which was changed or is another key's")
    if status == 400:
        return BadKey(f"{said}: the key does not do what is asked of it; look at its type and permitted operations")
    if 300 <= status < 400:
        return Denied(f"{said}: a vault redirects nobody, and nobody was followed; look at the address and at proxies")
    return Denied(f"{said}; give the broker's identity a role on the key, and look at the vault's firewall")


@asynccontextmanager
async def translating(within_s: float) -> AsyncIterator[None]:
    """Within this block, what the SDK raises leaves as an error of `kms.errors`; what nobody knows leaves as it is.

    Unchained, all of them: an SDK error carries requests and answers, and these carry keys and access tokens.
    """
    try:
        async with asyncio.timeout(within_s):
            yield
    except KmsError:
        raise
    except TimeoutError:
        raise Unavailable(f"neither vault nor sign-in answered within {within_s:g} s") from None
    except (AzureError, OSError, ValueError) as error:
        raise _translated(error) from None


def _translated(error: Exception) -> KmsError:
    """What an exception out of the SDK means. The sign-in wraps what happened to it, so causes are looked through."""
    causes = list(_causes(error))
    for each in causes:
        if isinstance(each, KmsError):
            return each
        if isinstance(each, aiohttp.ClientConnectorCertificateError):
            # Who cannot prove to be the vault has said nothing: were it a refusal, whoever can divert the line, and
            # could as well cut it, could also wipe the broker's caches.
            return Unavailable(
                "the server's certificate is not trusted for this address; give the authority that signed it as ca-file"
            )
    for each in causes:
        # 410 is how the identity endpoint of a virtual machine says that it is being updated.
        if isinstance(each, _NO_ANSWER) or _is_later(_status(each)) or _status(each) == 410:
            return Unavailable(f"no answer from the vault or from the sign-in endpoint ({type(each).__name__})")
    return _misunderstood(error, causes)


def _misunderstood(error: Exception, causes: list[BaseException]) -> KmsError:
    """What an exception means that is no outage."""
    if any(isinstance(each, ClientAuthenticationError) for each in causes):
        code = _ENTRA_CODE.search(str(error))
        return Denied(
            f"the sign-in was refused{f' ({code[0]})' if code else ''}; look at the broker's managed identity, or at"
            " the AZURE_ variables of its environment"
        )
    if isinstance(error, DecodeError):
        return Corrupt("the vault's answer is not JSON; is this address a vault?")
    if isinstance(error, OSError):
        return Denied(f"a file that the sign-in needs cannot be read ({type(error).__name__})")
    if isinstance(error, ValueError):
        return Denied("the server asks for a sign-in to something else than this vault, and got none")
    return Denied(f"the SDK failed with {type(error).__name__}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error`, what it was raised from, and so on, ten deep at most."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__


def _status(error: BaseException) -> int:
    """The status of the answer that `error` is about, 0 for none."""
    if isinstance(error, HttpResponseError) and error.response is not None:
        return error.response.status_code or 0
    return 0


def _is_later(status: int) -> bool:
    """True where the same request may succeed later: throttled, or an error of the service."""
    return status in (408, 429) or status >= 500
