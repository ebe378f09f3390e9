"""The local KMS keeps the laws of the port, bare and under guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest

from kms.catalog import open_kms
from kms.conformance import KmsLaws
from kms.port import Kms


class TestLocalKms(KmsLaws):
    """The bare adapter."""

    scheme: ClassVar[str] = "local"


class TestGuardedLocalKms(KmsLaws):
    """The adapter as the broker gets it: the guard takes nothing away."""

    scheme: ClassVar[str] = "local"

    @pytest.fixture
    async def kms(self, key_file: Path) -> AsyncIterator[Kms]:
        """The key of `key_file`, through the catalog."""
        async with open_kms(f"local:{key_file}") as opened:
            yield opened
