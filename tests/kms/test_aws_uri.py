"""URIs of AWS KMS keys."""

from __future__ import annotations

import pytest

from kms.aws.uri import AwsUri, parse_uri
from kms.errors import BadKey

ID = "1234abcd-12ab-34cd-56ef-1234567890ab"
ARN = f"arn:aws:kms:eu-west-1:111122223333:key/{ID}"
ROLE = "arn:aws:iam::111122223333:role/team/tokenbroker-worker"


def test_an_arn_says_its_region() -> None:
    """An ARN needs no option; saying its region again changes nothing."""
    assert parse_uri(f"aws-kms:{ARN}") == AwsUri(key=ARN, region="eu-west-1")
    assert parse_uri(f"aws-kms:{ARN}?region=eu-west-1") == AwsUri(key=ARN, region="eu-west-1")


@pytest.mark.parametrize(
    "key",
    [
        "alias/tokenbroker/prod",
        ID,
        "mrk-1234abcd12ab34cd56ef1234567890ab",
        "arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/tokenbroker",
        "arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
    ],
)
def test_every_name_of_a_key_is_taken(key: str) -> None:
    """Aliases, ids and multi-Region ids, also of other partitions, are handed to AWS as they stand."""
    region = key.split(":")[3] if key.startswith("arn:") else "ap-southeast-2"
    assert parse_uri(f"aws-kms:{key}?region={region}") == AwsUri(key=key, region=region)


def test_all_options_are_read() -> None:
    """Endpoints, role and external id are kept."""
    uri = f"aws-kms:{ARN}?endpoint=https://vpce.example:444&role={ROLE}&external-id=a%2Fb&sts-endpoint=HTTP://[::1]:9/"
    assert parse_uri(uri) == AwsUri(
        key=ARN,
        region="eu-west-1",
        endpoint="https://vpce.example:444",
        role=ROLE,
        external_id="a/b",
        sts_endpoint="http://[::1]:9",
    )


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("aws-kms:", "aws-kms:alias/NAME"),
        ("aws:alias/x", "aws-kms:alias/NAME"),
        ("aws-kms:arn:aws:kms:eu-west-1:111122223333", "six parts"),
        (f"aws-kms:arn:aws:s3:eu-west-1:111122223333:key/{ID}", "another service"),
        (f"aws-kms:arn:azure:kms:eu-west-1:111122223333:key/{ID}", "partition and region"),
        (f"aws-kms:arn:aws:kms:europe:111122223333:key/{ID}", "partition and region"),
        (f"aws-kms:arn:aws:kms::111122223333:key/{ID}", "partition and region"),
        (f"aws-kms:arn:aws:kms:eu-west-1:1111:key/{ID}", "account"),
        (f"aws-kms:arn:aws:kms:eu-west-1:111122223333:grant/{ID}", "key/ID or alias/NAME"),
        ("aws-kms:arn:aws:kms:eu-west-1:111122223333:key/", "key/ID or alias/NAME"),
        (f"aws-kms:{ARN}%0A", "key/ID or alias/NAME"),
        (f"aws-kms:{ARN}?region=us-east-1", "another one"),
        ("aws-kms:alias/x", "in which region"),
        ("aws-kms:alias/x?region=Frankfurt", "no AWS region"),
        ("aws-kms:alias/x?region=eu-west-1.evil.example/", "no AWS region"),
        ("aws-kms:tokenbroker?region=eu-west-1", "alias/NAME"),
        ("aws-kms:alias/?region=eu-west-1", "alias/NAME"),
        (f"aws-kms:{ARN}?profile=x", "unknown option 'profile'"),
        (f"aws-kms:{ARN}?endpoint=http://kms.example", "option endpoint is https"),
        (f"aws-kms:{ARN}?endpoint=http://127.0.0.1.example", "option endpoint is https"),
        (f"aws-kms:{ARN}?endpoint=http://localhost:4566", "option endpoint is https"),
        (f"aws-kms:{ARN}?endpoint=http://10.0.0.1", "option endpoint is https"),
        (f"aws-kms:{ARN}?endpoint=kms.example", "reads https://HOST"),
        (f"aws-kms:{ARN}?endpoint=https://kms.example/path", "reads https://HOST"),
        (f"aws-kms:{ARN}?endpoint=https://kms.example?x=y", "reads https://HOST"),
        (f"aws-kms:{ARN}?endpoint=https://", "reads https://HOST"),
        (f"aws-kms:{ARN}?endpoint=https://kms.example:port", "no URL"),
        (f"aws-kms:{ARN}?endpoint=https://canary:canary@kms.example", "user or password"),
        (f"aws-kms:{ARN}?role={ROLE}&sts-endpoint=http://sts.example", "option sts-endpoint is https"),
        (f"aws-kms:{ARN}?sts-endpoint=https://sts.example", "only beside role"),
        (f"aws-kms:{ARN}?external-id=abc", "only beside role"),
        (f"aws-kms:{ARN}?role=tokenbroker-worker", "no ARN of a role"),
        (f"aws-kms:{ARN}?role=arn:aws:iam::111122223333:user/x", "no ARN of a role"),
        (f"aws-kms:{ARN}?role={ROLE}&external-id=%C3%A9%C3%A9", "external-id has"),
    ],
)
def test_what_is_wrong_with_a_uri_is_named(uri: str, named: str) -> None:
    """A wrong URI is BadKey; the message says what is wrong, and repeats no option's value."""
    with pytest.raises(BadKey) as refused:
        parse_uri(uri)
    assert named in str(refused.value)
    assert "canary" not in str(refused.value)
