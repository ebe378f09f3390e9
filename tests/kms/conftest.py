"""Key files, opened keys and other parts that the tests of kms/ share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

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


@pytest.fixture
async def gcp(gcp_standin: Any) -> AsyncIterator[Any]:
    """A stand-in for Google Cloud KMS at a port of its own, without TLS."""
    async with gcp_standin.serving() as standin:
        yield standin


@pytest.fixture
async def azure_vault(azure_standin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A vault without keys (`parts/azure_standin.py`), and this process signed in to it by a managed identity."""
    for name in [each for each in os.environ if each.startswith("AZURE_") or each.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for bound in ("adapter.CALL_S", "connection.CONNECT_S", "connection.ANSWER_S"):
        monkeypatch.setattr(f"kms.azure.{bound}", 30.0)  # a slow machine breaks no law
    async with azure_standin.serving(tmp_path) as vault:
        monkeypatch.setenv("IDENTITY_ENDPOINT", vault.identity_url)
        monkeypatch.setenv("IDENTITY_HEADER", azure_standin.IDENTITY_HEADER)
        yield vault


@pytest.fixture
async def aws(aws_standin: Any, aws_environment: None) -> AsyncIterator[Any]:
    """A stand-in for AWS KMS and STS with one key."""
    async with aws_standin.standing() as standin:
        yield standin


@pytest.fixture
def transit_key(bao: Any, bao_servers: ModuleType, tmp_path: Path) -> Any:
    """A fresh key at the OpenBao server of the run (`TransitKey` of parts/bao.py)."""
    return bao_servers.TransitKey(bao=bao, folder=tmp_path)


@pytest.fixture
async def standin(transit_standin: ModuleType) -> AsyncIterator[Any]:
    """An HTTP server in the place of a transit engine (`Standin` of parts/transit_standin.py)."""
    async with transit_standin.serving() as server:
        yield server
