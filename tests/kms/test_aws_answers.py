"""What answers of AWS mean: the stand-in refuses, the real SDK reads it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kms.aws import open_aws
from kms.errors import BadKey, Corrupt, Denied, Disabled, KmsError, Unavailable
from kms.port import Kms, Wrap

KEY = bytes(range(32))
CONTEXT = {"app": "tokenbroker", "keyring": "tests"}


@pytest.fixture
async def kms(aws: Any) -> AsyncIterator[Kms]:
    """The stand-in's key, open."""
    async with open_aws(aws.uri(aws.key)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (("ThrottlingException", 400), Unavailable),
        (("LimitExceededException", 400), Unavailable),
        (("RequestLimitExceeded", 400), Unavailable),
        (("TooManyRequestsException", 429), Unavailable),
        (("KMSInternalException", 500), Unavailable),
        (("DependencyTimeoutException", 503), Unavailable),
        (("KeyUnavailableException", 500), Unavailable),
        (("SomethingElse", 503), Unavailable),
        (("AccessDeniedException", 400), Denied),
        (("UnrecognizedClientException", 400), Denied),
        (("ExpiredTokenException", 400), Denied),
        (("InvalidSignatureException", 400), Denied),
        (("InvalidGrantTokenException", 400), Denied),
        (("DisabledException", 400), Disabled),
        (("KMSInvalidStateException", 400), Disabled),
        (("NotFoundException", 400), Disabled),
        (("InvalidCiphertextException", 400), Corrupt),
        (("IncorrectKeyException", 400), Corrupt),
        (("InvalidKeyUsageException", 400), BadKey),
        (("SomethingElse", 400), Denied),
        (("ValidationException", 400), Denied),
        (("", 400), Denied),
    ],
)
async def test_each_error_has_its_meaning(
    aws: Any, aws_standin: Any, kms: Kms, answer: tuple[str, int], kind: type[KmsError]
) -> None:
    """Throttling and faults are Unavailable, refusals Denied, and what nobody knows is Denied too."""
    wrap = await kms.wrap(KEY, CONTEXT)
    code, status = answer
    aws.always(aws_standin.refuses(code, status))
    with pytest.raises(KmsError) as refused:
        await kms.unwrap(wrap, CONTEXT)
    assert type(refused.value) is kind
    assert refused.value.kms_key == kms.uri
    assert code in str(refused.value) or str(status) in str(refused.value)


@pytest.mark.parametrize("code", ["ThrottlingException", "KMSInternalException"])
async def test_a_single_failure_is_tried_again(aws: Any, aws_standin: Any, kms: Kms, code: str) -> None:
    """One throttled or failed attempt is followed by another, and no caller notices."""
    aws.next(aws_standin.refuses(code, 400 if code == "ThrottlingException" else 500))
    await kms.wrap(KEY, CONTEXT)
    assert aws.operations() == ["DescribeKey", "Encrypt", "Encrypt"]


async def test_what_a_server_repeats_is_not_shown(aws: Any, aws_standin: Any, kms: Kms) -> None:
    """A server that puts the key into its error text puts it into no message of ours."""
    spelt = base64.b64encode(KEY).decode()
    aws.always(aws_standin.says(json.dumps({"__type": spelt, "message": spelt}).encode(), status=400))
    with pytest.raises(Denied) as refused:
        await kms.wrap(KEY, CONTEXT)
    assert spelt not in f"{refused.value!s} {refused.value!r}"


@pytest.mark.parametrize("state", ["Disabled", "PendingDeletion", "PendingImport", "Unavailable"])
async def test_a_key_that_is_not_enabled_is_disabled(aws: Any, kms: Kms, state: str) -> None:
    """Disabling a key, or scheduling its deletion, takes effect with the next call, and describe says so."""
    wrap = await kms.wrap(KEY, CONTEXT)
    aws.key.metadata["KeyState"] = state
    with pytest.raises(Disabled):
        await kms.unwrap(wrap, CONTEXT)
    with pytest.raises(Disabled):
        await kms.generate(CONTEXT)
    description = await kms.describe()
    assert state in description.state
    assert description.warnings[0].startswith("the key is ")


async def test_another_keys_blob_is_corrupt_and_not_asked_about(aws: Any, kms: Kms) -> None:
    """A wrap that names another key is refused here; one that names none is refused by AWS."""
    async with open_aws(aws.uri(aws.create_key())) as other:
        wrap = await other.wrap(KEY, CONTEXT)
    asked = len(aws.calls)
    with pytest.raises(Corrupt, match="alias was moved"):
        await kms.unwrap(wrap, CONTEXT)
    assert len(aws.calls) == asked
    with pytest.raises(Corrupt, match="IncorrectKeyException"):
        await kms.unwrap(Wrap(key_version="", blob=wrap.blob), CONTEXT)


async def test_the_key_is_named_by_its_arn_in_every_call(aws: Any, kms: Kms) -> None:
    """Encrypt, GenerateDataKey, Decrypt and DescribeKey name the whole ARN, and never leave the key to the blob."""
    await kms.check()
    await kms.generate(CONTEXT)
    await kms.describe()
    assert {call.body["KeyId"] for call in aws.calls} == {aws.key.arn("eu-west-1")}
