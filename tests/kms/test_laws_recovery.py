"""A recovery key whose private half was put back keeps the laws of the port, bare and under guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from kms.catalog import open_kms
from kms.conformance import Deciding, KmsLaws
from kms.port import Kms
from kms.recovery import open_recovery
from kms.recovery.adapter import recovery_uri
from kms.recovery.text import paper_text


def _put_back(path: Path) -> str:
    """A fresh recovery key whose private half is in the file `path`; its URI."""
    private_key = X25519PrivateKey.generate()
    path.touch(mode=0o600)
    path.write_text(paper_text(private_key.private_bytes_raw()))
    return f"{recovery_uri(private_key.public_key())}?private-key=file:{path}"


class TestRecoveryKms(KmsLaws):
    """The bare adapter, in the mode of an emergency."""

    scheme: ClassVar[str] = "recovery"

    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        """The URI of a recovery key whose private half is here."""
        return _put_back(tmp_path / "recovery")

    @pytest.fixture
    async def kms(self, uri: str) -> AsyncIterator[Kms]:
        """That key."""
        async with open_recovery(uri) as opened:
            yield opened

    @pytest.fixture
    async def same_kms(self, uri: str) -> AsyncIterator[Kms]:
        """That key, opened a second time."""
        async with open_recovery(uri) as opened:
            yield opened

    @pytest.fixture
    async def other_kms(self, tmp_path: Path) -> AsyncIterator[Kms]:
        """Another recovery key."""
        async with open_recovery(_put_back(tmp_path / "other")) as opened:
            yield opened

    @pytest.fixture
    def deciding(self) -> Deciding | None:
        """None: it decides for no worker."""
        return None


class TestGuardedRecoveryKms(TestRecoveryKms):
    """The adapter as the broker gets it: the guard takes nothing away."""

    @pytest.fixture
    async def kms(self, uri: str) -> AsyncIterator[Kms]:
        """The key, through the catalog."""
        async with open_kms(uri) as opened:
            yield opened
