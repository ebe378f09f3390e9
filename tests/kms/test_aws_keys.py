"""Keys of every kind, and what describe says of them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from kms.aws import open_aws
from kms.errors import BadKey, Corrupt, Disabled
from kms.port import Caller, Wrap

KEY = bytes(range(32))
CONTEXT = {"app": "tokenbroker", "keyring": "tests"}

pytestmark = pytest.mark.usefixtures("aws_environment")


async def test_an_alias_and_an_id_name_the_key(moto: Any) -> None:
    """What is wrapped under an alias opens under the ARN and the bare id: the key is the same."""
    arn = moto.create_key("named-here")
    async with open_aws(f"aws-kms:alias/named-here?region=eu-west-1&endpoint={moto.url}") as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
    for name in (arn, arn.rpartition("/")[2], f"{arn.rpartition(':')[0]}:alias/named-here"):
        async with open_aws(f"aws-kms:{name}?region=eu-west-1&endpoint={moto.url}") as kms:
            assert await kms.unwrap(wrap, CONTEXT) == KEY


async def test_a_moved_alias_is_another_key(moto: Any) -> None:
    """A running broker keeps the key that the alias named at the start; a later one says what happened."""
    moto.create_key("moved-here")
    uri = f"aws-kms:alias/moved-here?region=eu-west-1&endpoint={moto.url}"
    async with open_aws(uri) as before:
        wrap = await before.wrap(KEY, CONTEXT)
        moto.ask("UpdateAlias", {"AliasName": "alias/moved-here", "TargetKeyId": moto.create_key()})
        assert await before.unwrap(wrap, CONTEXT) == KEY
        async with open_aws(uri) as after:
            with pytest.raises(Corrupt, match="alias was moved"):
                await after.unwrap(wrap, CONTEXT)


async def test_a_related_key_in_another_region_opens(aws: Any) -> None:
    """What a multi-Region key wrapped in one region, its replica opens in another, and the other way round.

    At the stand-in: moto cuts the id of a multi-Region key short in what it encrypts, and opens none of it.
    """
    key = aws.create_key(f"mrk-{uuid.uuid4().hex}", MultiRegion=True)
    async with open_aws(aws.uri(key)) as here, open_aws(aws.uri(key, region="us-east-1")) as there:
        assert await there.unwrap(await here.wrap(KEY, CONTEXT), CONTEXT) == KEY
        generated, wrap = await there.generate(CONTEXT)
        assert await here.unwrap(wrap, CONTEXT) == generated
        assert "multi-Region" in (await here.describe()).state
    assert {call.body["KeyId"] for call in aws.calls} == {key.arn("eu-west-1"), key.arn("us-east-1")}


@pytest.mark.parametrize(
    "kind",
    [
        {"KeySpec": "RSA_2048", "KeyUsage": "ENCRYPT_DECRYPT"},
        {"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"},
        {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"},
    ],
    ids=lambda kind: kind["KeySpec"],
)
async def test_a_key_of_another_kind_is_refused_at_the_start(moto: Any, kind: dict[str, str]) -> None:
    """Only symmetric keys for encryption serve; another is BadKey, and its kind is named."""
    with pytest.raises(BadKey, match=kind["KeySpec"]):
        async with open_aws(moto.uri(moto.create_key(**kind))):
            pass


@pytest.mark.parametrize("name", ["alias/nobody", "00000000-0000-4000-8000-000000000000"])
async def test_a_key_that_is_not_there_is_disabled(moto: Any, name: str) -> None:
    """An unknown key or alias is said to be missing, with where it was looked for."""
    with pytest.raises(Disabled, match="no such key or alias in this account and region"):
        async with open_aws(f"aws-kms:{name}?region=eu-west-1&endpoint={moto.url}"):
            pass


async def test_a_wrap_says_which_key_made_it(moto: Any) -> None:
    """The key version is the key's id; a wrap that says none opens as well."""
    arn = moto.create_key()
    async with open_aws(moto.uri(arn)) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        assert wrap.key_version == arn.rpartition("/")[2] == (await kms.describe()).key_version
        assert await kms.unwrap(Wrap(key_version="", blob=wrap.blob), CONTEXT) == KEY


async def test_a_worker_is_asked_for_through_sts(moto: Any) -> None:
    """moto's STS and KMS understand what is asked in a worker's name; they decide nothing."""
    role = "arn:aws:iam::123456789012:role/tokenbroker-worker"
    async with open_aws(f"{moto.uri(moto.create_key())}&role={role}&sts-endpoint={moto.url}") as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        assert await kms.unwrap(wrap, CONTEXT, Caller(worker="ci-1", groups=("builders",))) == KEY


async def test_describe_warns(moto: Any) -> None:
    """A key that will be deleted, and a line that anybody may read, are warned of."""
    arn = moto.create_key()
    async with open_aws(moto.uri(arn)) as kms:
        moto.ask("ScheduleKeyDeletion", {"KeyId": arn.rpartition("/")[2], "PendingWindowInDays": 7})
        description = await kms.describe()
    assert (description.provider, description.state) == ("aws-kms", "PendingDeletion, origin AWS_KMS")
    assert description.hsm
    deletion, line = description.warnings
    assert deletion.startswith("the key is deleted for ever on 20")
    assert line.startswith("the option endpoint is http")


@pytest.mark.parametrize(
    ("metadata", "hsm", "warned"),
    [
        (
            {"Origin": "EXTERNAL", "ExpirationModel": "KEY_MATERIAL_EXPIRES", "ValidTo": 4102444800},
            True,
            "its imported key material expires on 2100-01-01",
        ),
        ({"Origin": "EXTERNAL_KEY_STORE"}, False, "the key lives in an external key store"),
    ],
    ids=lambda value: value["Origin"] if isinstance(value, dict) else "",
)
async def test_describe_tells_where_the_key_lives(
    aws: Any, metadata: dict[str, object], hsm: bool, warned: str
) -> None:
    """Imported material that expires is warned of; a key outside of AWS is not called one in hardware."""
    async with open_aws(aws.uri(aws.create_key(**metadata))) as kms:
        description = await kms.describe()
    assert description.hsm is hsm
    assert description.warnings[0].startswith(warned)
