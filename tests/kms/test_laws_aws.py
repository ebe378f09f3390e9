"""AWS KMS keeps the laws of the port: over moto, and over the stand-in, which can decide per worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest

from kms.aws import open_aws
from kms.catalog import open_kms
from kms.conformance import Deciding, KmsLaws
from kms.port import Caller, Kms


class TestAwsKmsOverMoto(KmsLaws):
    """The bare adapter, against the moto server."""

    scheme: ClassVar[str] = "aws-kms"
    flips_max: ClassVar[int] = 24

    @pytest.fixture
    def arn(self, moto: Any, aws_environment: None) -> str:
        """A key of this test."""
        arn: str = moto.create_key()
        return arn

    @pytest.fixture
    async def kms(self, moto: Any, arn: str) -> AsyncIterator[Kms]:
        """The key, open."""
        async with open_aws(moto.uri(arn)) as opened:
            yield opened

    @pytest.fixture
    async def same_kms(self, moto: Any, arn: str) -> AsyncIterator[Kms]:
        """The key, opened a second time."""
        async with open_aws(moto.uri(arn)) as opened:
            yield opened

    @pytest.fixture
    async def other_kms(self, moto: Any, arn: str) -> AsyncIterator[Kms]:
        """Another key."""
        async with open_aws(moto.uri(moto.create_key())) as opened:
            yield opened

    @pytest.fixture
    def deciding(self) -> None:
        """moto enforces no key policy on Decrypt."""
        return


class TestGuardedAwsKms(KmsLaws):
    """The adapter as the broker gets it, against the stand-in."""

    scheme: ClassVar[str] = "aws-kms"
    flips_max: ClassVar[int] = 24

    @pytest.fixture
    async def kms(self, aws: Any) -> AsyncIterator[Kms]:
        """The stand-in's first key."""
        async with open_kms(aws.uri(aws.key)) as opened:
            yield opened

    @pytest.fixture
    async def same_kms(self, aws: Any) -> AsyncIterator[Kms]:
        """The same key, opened a second time."""
        async with open_kms(aws.uri(aws.key)) as opened:
            yield opened

    @pytest.fixture
    async def other_kms(self, aws: Any) -> AsyncIterator[Kms]:
        """Another key of the stand-in."""
        async with open_kms(aws.uri(aws.create_key())) as opened:
            yield opened

    @pytest.fixture
    async def deciding(self, aws: Any) -> AsyncIterator[Deciding]:
        """The first key, with a policy on the session tag `worker`."""
        aws.key.workers = {"ci-1"}
        async with open_kms(aws.uri(aws.key, role=True)) as opened:
            yield Deciding(kms=opened, allowed=Caller(worker="ci-1", groups=()))
