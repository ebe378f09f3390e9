"""The PKCS#11 KMS keeps the laws of the port with both of its mechanisms, on real SoftHSM2 tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest

from kms.catalog import open_kms
from kms.conformance import KmsLaws
from kms.pkcs11 import open_pkcs11
from kms.port import Kms


@pytest.fixture(scope="module")
def token(softhsm: Any) -> Any:
    """A token with two keys of each kind."""
    made = softhsm.token()
    for label in ("one", "other"):
        softhsm.rsa(made, f"rsa-{label}")
        softhsm.aes(made, f"aes-{label}")
    return made


@pytest.fixture
def deciding() -> None:
    """A token decides for no worker."""


class TestRsaOaepKms(KmsLaws):
    """The bare adapter with an RSA key pair."""

    scheme: ClassVar[str] = "pkcs11"

    @pytest.fixture
    async def kms(self, softhsm: Any, token: Any) -> AsyncIterator[Kms]:
        """One key."""
        async with open_pkcs11(softhsm.uri(token, "rsa-one")) as opened:
            yield opened

    @pytest.fixture
    async def same_kms(self, softhsm: Any, token: Any) -> AsyncIterator[Kms]:
        """The same key, through the same library, opened a second time."""
        async with open_pkcs11(softhsm.uri(token, "rsa-one")) as opened:
            yield opened

    @pytest.fixture
    async def other_kms(self, softhsm: Any, token: Any) -> AsyncIterator[Kms]:
        """Another key of the same token."""
        async with open_pkcs11(softhsm.uri(token, "rsa-other")) as opened:
            yield opened


class TestAesKeyWrapKms(KmsLaws):
    """The bare adapter with an AES key."""

    scheme: ClassVar[str] = "pkcs11"

    @pytest.fixture
    async def kms(self, softhsm: Any, token: Any) -> AsyncIterator[Kms]:
        """One key."""
        async with open_pkcs11(softhsm.uri(token, "aes-one")) as opened:
            yield opened

    @pytest.fixture
    async def same_kms(self, softhsm: Any, token: Any) -> AsyncIterator[Kms]:
        """The same key, through the same library, opened a second time."""
        async with open_pkcs11(softhsm.uri(token, "aes-one")) as opened:
            yield opened

    @pytest.fixture
    async def other_kms(self, softhsm: Any, token: Any) -> AsyncIterator[Kms]:
        """Another key of the same token."""
        async with open_pkcs11(softhsm.uri(token, "aes-other")) as opened:
            yield opened


class TestGuardedPkcs11Kms(TestRsaOaepKms):
    """The adapter as the broker gets it: the guard takes nothing away."""

    @pytest.fixture
    async def kms(self, softhsm: Any, token: Any) -> AsyncIterator[Kms]:
        """One key, through the catalog."""
        async with open_kms(softhsm.uri(token, "rsa-one")) as opened:
            yield opened
