"""What operators see of several KMS keys: in readiness, in the status, in the numbers and in the log."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from broker import readiness
from broker.api import probes
from kms.errors import Denied, KmsError, Unavailable
from kms.local import create_key_file
from kms.port import Caller, Wrap


class Keys:
    """The KMS keys of a house in the order of opening, each of which can be told what to answer instead."""

    def __init__(self) -> None:
        self.opened: list[Moody] = []

    def around(self, key: Any) -> Any:
        self.opened.append(Moody(key))
        return self.opened[-1]


class Moody:
    def __init__(self, key: Any) -> None:
        self._key = key
        self.error: KmsError | None = None
        self.checks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._key, name)

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        if self.error is not None:
            raise self.error
        plain: bytes = await self._key.unwrap(wrap, context, caller)
        return plain

    async def check(self) -> None:
        self.checks += 1
        if self.error is not None:
            raise self.error
        await self._key.check()


@pytest.fixture
def keys() -> Keys:
    """Those of the house."""
    return Keys()


@pytest.fixture
async def two(
    keys: Keys, config: Path, open_house: Any, prepare: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Any]:
    """A broker whose keyring `pair` has two KMS keys of its own, with the token github/pair in it."""
    monkeypatch.setattr(probes, "REMEMBERED_S", 0.0)
    monkeypatch.setattr(readiness, "LATELY_S", 0.5)
    paths = [config.parent / f"pair-{number}.key" for number in range(2)]
    for path in paths:
        create_key_file(path)
    with config.open("a") as file:
        file.write(f"\n[keyrings.pair]\nkms_keys = {json.dumps([f'local:{path}' for path in paths])}\n")
    async with open_house(kms=keys.around) as house:
        await prepare(house)
        await house.put("github/pair", b"both", keyring="pair")
        yield house


async def readyz(house: Any) -> tuple[int, Any, str]:
    async with aiohttp.ClientSession() as http, http.get(f"{house.url}/readyz") as answer:
        return answer.status, await answer.json(), await answer.text()


async def metrics(house: Any) -> str:
    async with aiohttp.ClientSession() as http, http.get(f"{house.url}/metrics") as answer:
        text: str = await answer.text()
        return text


async def status(house: Any, credential: str) -> Any:
    headers = {"Authorization": f"Bearer {credential}"}
    async with aiohttp.ClientSession() as http, http.get(f"{house.url}/v1/status", headers=headers) as answer:
        return await answer.json()


@pytest.mark.parametrize("error", [Unavailable("away"), Denied("closed account")], ids=["silent", "refuses"])
async def test_one_lost_of_several_is_degraded(two: Any, keys: Keys, error: KmsError) -> None:
    """The broker is ready, probes show that something is lost, and only the log says what."""
    assert (await readyz(two))[1]["checks"]["kms"] == "ok"
    keys.opened[1].error = error
    two.broker.vault.flush()
    with structlog.testing.capture_logs() as logs:
        await _wait(two, "degraded")
        code, ready, text = await readyz(two)
        assert (code, ready["ready"]) == (200, True)
        for secret in ("local:", "pair-0", "closed account", error.code):
            assert secret not in text
    (told,) = [line for line in logs if line["event"] == "kms_does_not_open"]
    assert (told["kms_key"], told["error"]) == (keys.opened[1].uri, error.code)
    keys.opened[1].error = None
    await _wait(two, "ok")


async def test_all_lost_is_not_ready(two: Any, keys: Keys) -> None:
    """When no KMS key opens, the broker says that it cannot serve what is not cached."""
    for key in keys.opened:
        key.error = Unavailable("away")
    await _wait(two, "failed")
    assert (await readyz(two))[0] == 503


async def test_probes_are_no_load_on_a_kms(two: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often readiness is asked for, a KMS key that did well within ten seconds is not asked."""
    monkeypatch.setattr(readiness, "LATELY_S", 10.0)
    await readyz(two)
    checks = [key.checks for key in keys.opened]
    for _ in range(20):
        await readyz(two)
    assert [key.checks for key in keys.opened] == checks


async def test_who_refuses_is_counted_and_the_other_serves(two: Any, keys: Keys, welcomed: Any) -> None:
    """A lease is granted by the second KMS key; the refusal of the first is a number with its name, and an error."""
    keys.opened[1].error = Denied("closed account")
    two.broker.vault.flush()
    with structlog.testing.capture_logs() as logs:
        async with welcomed(two) as worker:
            assert (await worker.lease("github/pair"))["value"] == "both"
    text = await metrics(two)
    assert f'tokenbroker_vault_unwraps_total{{kind="denied",kms_key="{keys.opened[1].uri}"}} 1.0' in text
    assert f'tokenbroker_vault_unwraps_total{{kind="ok",kms_key="{keys.opened[2].uri}"}}' in text
    for key, calls in ((keys.opened[1], "unwrap"), (keys.opened[2], "wrap")):
        assert f'tokenbroker_kms_breaker{{kms_key="{key.uri}"}} 0.0' in text
        assert f'tokenbroker_kms_answered_s{{kms_key="{key.uri}"}}' in text
        assert re.search(rf'kms_call_seconds_count{{kms_key="{re.escape(key.uri)}",operation="{calls}"}} [1-9]', text)
    assert any(line["event"] == "data_key_refused" and line["log_level"] == "error" for line in logs)


async def test_the_status_names_each_kms_key(two: Any, keys: Keys) -> None:
    """Operators, and nobody else, read which KMS key answered when, and what the last call led to."""
    keys.opened[1].error = Unavailable("away")
    two.broker.vault.flush()
    await _wait(two, "degraded")
    minted = await two.services.admins.create("looker", roles=("reader",), expires_at=None, actor="system")
    await two.settled()
    told = {each["kms_key"]: each for each in (await status(two, minted.credential.reveal().decode()))["kms"]}
    assert list(told) == [key.uri for key in keys.opened]
    assert told[keys.opened[1].uri]["last_error"] == "kms_unavailable"
    assert told[keys.opened[2].uri]["last_error"] == ""
    assert told[keys.opened[2].uri]["answered_s_ago"] < 60


async def _wait(house: Any, state: str) -> None:
    """Return when readiness shows this of the KMS; what did well lately is believed for a moment."""

    async def shown() -> bool:
        return bool((await readyz(house))[1]["checks"]["kms"] == state)

    await house.until(shown, within_s=20)
