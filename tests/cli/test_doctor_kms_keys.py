"""What the doctor says of several KMS keys: which answers, which does not, what serves without it, what to mend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.doctor import kms_keys
from broker.doctor.findings import Finding
from broker.settings import Settings, read_settings
from kms.errors import Denied, Disabled, KmsError, Unavailable
from kms.guard import GuardedKms
from kms.local import create_key_file, open_local

Ask = Callable[..., Any]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Examines two keys in kms.keys and one in a keyring; `broken`: by number, what a key answers instead."""
    uris = []
    for number in range(3):
        create_key_file(tmp_path / f"{number}.key")
        uris.append(f"local:{tmp_path / f'{number}.key'}")

    async def examined(broken: dict[int, KmsError] | None = None) -> dict[str, list[Finding]]:
        spoilt = {uris[number]: error for number, error in (broken or {}).items()}

        @asynccontextmanager
        async def opened(uri: str) -> AsyncIterator[Any]:
            async with open_local(uri) as key:
                yield GuardedKms(adapter=Spoilt(key, spoilt[uri]) if uri in spoilt else key, uri=uri)

        monkeypatch.setattr(kms_keys, "open_kms", opened)
        found: dict[str, list[Finding]] = {"KMS": [], "KMS keys": []}
        async with AsyncExitStack() as stack:
            async for finding in kms_keys.examine_kms(settings(uris), stack, []):
                found[finding.check].append(finding)
        return found

    return examined


class Spoilt:
    """A KMS key that answers `error` when it is checked."""

    def __init__(self, key: Any, error: KmsError) -> None:
        self._key = key
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._key, name)

    async def check(self) -> None:
        raise self._error


def settings(uris: list[str]) -> Settings:
    tables = {"kms": {"keys": uris[:2]}, "keyrings": {"payments": {"kms_keys": uris[2:]}}}
    return read_settings(tables, {}, where="the test")


async def test_each_list_says_who_serves_it(ask: Ask) -> None:
    """When all is well each key has its line, and each list says in which order its keys are asked."""
    found = await ask()
    assert [finding.state for finding in found["KMS"]].count("ok") == 3
    assert "failed" not in {finding.state for finding in found["KMS"]}
    assert [finding.said.partition(":")[0] for finding in found["KMS keys"]] == ["kms.keys", "keyring payments"]
    assert {finding.state for finding in found["KMS keys"]} == {"ok"}


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        pytest.param(Unavailable("away"), "Mend the way to it", id="silent"),
        pytest.param(Denied("no"), "Mend its policy", id="refuses"),
        pytest.param(Disabled("off"), "Enable it", id="disabled"),
    ],
)
async def test_the_loss_of_one_of_two_is_a_warning(ask: Ask, error: KmsError, remedy: str) -> None:
    """It names the key and the remedy, and the list says which key serves without it."""
    found = await ask({0: error})
    (lost,) = [finding for finding in found["KMS"] if "0.key" in finding.said and finding.state != "ok"]
    assert lost.state == "warning"
    assert remedy in lost.said
    assert found["KMS keys"][0].state == "warning"
    assert found["KMS keys"][0].said.index("1.key") < found["KMS keys"][0].said.index("0.key")


async def test_the_loss_of_the_only_one_is_a_failure(ask: Ask) -> None:
    """A keyring that nobody opens is told as such, and other lists are not."""
    found = await ask({2: Unavailable("away")})
    assert [finding.state for finding in found["KMS keys"]] == ["ok", "failed"]
    assert [finding.state for finding in found["KMS"] if "2.key" in finding.said] == ["failed"]
