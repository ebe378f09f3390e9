"""The Azure Key Vault adapter keeps the laws of the port, with an RSA key and with an AES key of a Managed HSM."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest

from kms.azure import open_azure
from kms.catalog import open_kms
from kms.conformance import KmsLaws
from kms.port import Kms


class TestAzureRsaKms(KmsLaws):
    """The bare adapter with an RSA key."""

    scheme: ClassVar[str] = "azure-kv"
    flips_max: ClassVar[int] = 16
    kty: ClassVar[str] = "RSA-HSM"

    @pytest.fixture
    def keys(self, azure_vault: Any) -> Any:
        """A vault with two keys, the first with two versions."""
        azure_vault.add("laws", 1, kty=self.kty)
        azure_vault.add("laws", 2, kty=self.kty)
        azure_vault.add("other", 3, kty=self.kty)
        return azure_vault

    @pytest.fixture
    async def kms(self, keys: Any) -> AsyncIterator[Kms]:
        """The key, open."""
        async with open_azure(keys.uri("laws")) as opened:
            yield opened

    @pytest.fixture
    async def same_kms(self, keys: Any) -> AsyncIterator[Kms]:
        """The key, opened a second time."""
        async with open_azure(keys.uri("laws")) as opened:
            yield opened

    @pytest.fixture
    async def other_kms(self, keys: Any) -> AsyncIterator[Kms]:
        """Another key of the same vault."""
        async with open_azure(keys.uri("other")) as opened:
            yield opened

    @pytest.fixture
    def deciding(self) -> None:
        """A vault never decides per worker."""
        return


class TestAzureAesKms(TestAzureRsaKms):
    """The bare adapter with an AES key."""

    kty: ClassVar[str] = "oct-HSM"


class TestGuardedAzureKms(TestAzureRsaKms):
    """The adapter as the broker gets it: the guard takes nothing away."""

    @pytest.fixture
    async def kms(self, keys: Any) -> AsyncIterator[Kms]:
        """The key, through the catalog."""
        async with open_kms(keys.uri("laws")) as opened:
            yield opened
