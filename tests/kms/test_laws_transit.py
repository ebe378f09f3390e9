"""The transit adapter keeps the laws of the port, against a real OpenBao server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kms.conformance import Deciding, KmsLaws
from kms.port import Caller, Kms
from kms.transit import open_transit


class TestTransitKms(KmsLaws):
    """The bare adapter, logged in with a token that may encrypt, decrypt and read one key."""

    scheme: ClassVar[str] = "transit"
    flips_max: ClassVar[int] = 96

    @pytest.fixture
    def uri(self, bao: Any, tmp_path: Path) -> str:
        """A fresh key, and a token for it in a file."""
        mount = bao.transit()
        for key in ("laws", "other"):
            bao.key(mount, key)
        rules = {f"{mount}/{verb}/+": ["update"] for verb in ("encrypt", "decrypt")}
        bao.policy(mount, {**rules, f"{mount}/keys/+": ["read"], "auth/token/create/workers": ["update"]})
        bao.token_role("workers")
        bao.policy("tokenbroker-worker-ci-1", {f"{mount}/decrypt/laws": ["update"]})
        token = tmp_path / "token"
        token.touch(mode=0o600)
        token.write_text(bao.token(mount))
        return f"transit:{bao.url}/{mount}/laws?token_file={token}"

    @pytest.fixture
    async def kms(self, uri: str) -> AsyncIterator[Kms]:
        """The key."""
        async with open_transit(uri) as opened:
            yield opened

    @pytest.fixture
    async def same_kms(self, uri: str) -> AsyncIterator[Kms]:
        """The key, opened a second time."""
        async with open_transit(uri) as opened:
            yield opened

    @pytest.fixture
    async def other_kms(self, uri: str) -> AsyncIterator[Kms]:
        """Another key of the same mount."""
        async with open_transit(uri.replace("/laws?", "/other?")) as opened:
            yield opened

    @pytest.fixture
    async def deciding(self, uri: str) -> AsyncIterator[Deciding]:
        """The key with a token role; one worker has a policy."""
        async with open_transit(f"{uri}&worker_role=workers") as opened:
            yield Deciding(kms=opened, allowed=Caller(worker="ci-1", groups=()))
