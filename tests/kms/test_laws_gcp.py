"""Google Cloud KMS keeps the laws of the port, spoken to through the real SDK; the other side is a stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest

from kms.conformance import KmsLaws
from kms.gcp import open_gcp
from kms.port import Kms


class TestGcpKms(KmsLaws):
    """The bare adapter. It never decides per worker."""

    scheme: ClassVar[str] = "gcp-kms"
    flips_max: ClassVar[int] = 64

    @pytest.fixture
    async def kms(self, gcp: Any) -> AsyncIterator[Kms]:
        """A key at the stand-in."""
        async with open_gcp(gcp.uri(gcp.key("laws"))) as opened:
            yield opened

    @pytest.fixture
    async def same_kms(self, gcp: Any, kms: Kms) -> AsyncIterator[Kms]:
        """The same key over a channel of its own."""
        async with open_gcp(kms.uri) as opened:
            yield opened

    @pytest.fixture
    async def other_kms(self, gcp: Any) -> AsyncIterator[Kms]:
        """Another key of the ring."""
        async with open_gcp(gcp.uri(gcp.key("other"))) as opened:
            yield opened

    @pytest.fixture
    def deciding(self) -> None:
        """No key of Google's decides per worker."""
