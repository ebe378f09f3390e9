"""Key files, opened keys and other parts that the tests of kms/ share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kms.conformance import Deciding
from kms.local import create_key_file, open_local
from kms.port import Caller, Kms

LAWS_POLICY = """\
format = "tokenbroker/kms-local-policy/v1"
[[allow]]
keyrings = ["laws"]
workers = ["ci-1"]
"""


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A fresh key file without passphrase."""
    path = tmp_path / "kms.key"
    create_key_file(path)
    return path


@pytest.fixture
async def kms(key_file: Path) -> AsyncIterator[Kms]:
    """The key of `key_file`, open."""
    async with open_local(f"local:{key_file}") as opened:
        yield opened


@pytest.fixture
async def same_kms(key_file: Path) -> AsyncIterator[Kms]:
    """The key of `key_file`, opened a second time."""
    async with open_local(f"local:{key_file}") as opened:
        yield opened


@pytest.fixture
async def other_kms(tmp_path: Path) -> AsyncIterator[Kms]:
    """A key of another file."""
    path = tmp_path / "other.key"
    create_key_file(path)
    async with open_local(f"local:{path}") as opened:
        yield opened


@pytest.fixture
async def deciding(key_file: Path, tmp_path: Path) -> AsyncIterator[Deciding]:
    """The key of `key_file` with a policy that allows one worker."""
    policy = tmp_path / "laws-policy.toml"
    policy.write_text(LAWS_POLICY)
    policy.chmod(0o600)
    async with open_local(f"local:{key_file}?policy={policy}") as opened:
        yield Deciding(kms=opened, allowed=Caller(worker="ci-1", groups=()))
