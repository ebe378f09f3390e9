"""A broker starts while one of its KMS keys, in another region or account, is lost, and uses it when it is back."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from broker import readiness
from broker.api import probes
from broker.doctor.examining import examine
from broker.errors import StartRefused
from broker.setup.layout import layout_of
from broker.vault.errors import KeyDenied, KeyUnavailable
from kms.local import create_key_file

ACTOR = "admin:root"


class Installation:
    """A cluster whose KMS keys are one of the cloud, asked first, and one in a file."""

    def __init__(self, *, cloud: Any, config: Path, lost: str, spare: str, opening: Any) -> None:
        self.cloud = cloud
        self.config = config
        self.lost = lost
        self.spare = spare
        self._opening = opening
        self._workers: dict[str, Any] = {}

    def write(self, clouds: Any, *keys: str, sections: str = "") -> None:
        clouds.write_config(self.config, list(keys), sections=sections)

    @asynccontextmanager
    async def serving(self, **options: Any) -> AsyncIterator[Any]:
        """The cluster is served; workers do not answer pings while time passes."""
        async with self._opening(self.config, session={"heartbeat_s": 86_400.0}, **options) as house:
            house.workers.update(self._workers)
            yield house
            self._workers = dict(house.workers)


@pytest.fixture
async def installation(
    *,
    cloud: Any,
    clouds: Any,
    house_parts: Any,
    prepare: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Installation:
    """Founded and furnished while both keys answer; the worker ci-1 may lease github/ci."""
    monkeypatch.setattr(probes, "REMEMBERED_S", 0.0)
    monkeypatch.setattr(readiness, "LATELY_S", 0.0)
    config = tmp_path / "data" / "broker.toml"
    config.parent.mkdir(mode=0o700)
    create_key_file(tmp_path / "spare.key")
    made = Installation(
        cloud=cloud,
        config=config,
        lost=await cloud.key(),
        spare=f"local:{tmp_path / 'spare.key'}",
        opening=lambda path, **options: house_parts.open_house(path, monkeypatch, **options),
    )
    made.write(clouds, made.lost, made.spare)
    await clouds.found(config)
    async with made.serving() as house:
        await prepare(house)
    cloud.recover()
    return made


async def get(house: Any, path: str) -> str:
    async with aiohttp.ClientSession() as http, http.get(f"{house.url}{path}") as answer:
        text: str = await answer.text()
        return text


@pytest.mark.parametrize(("loss", "error"), [("hang_up", KeyUnavailable), ("refuse", KeyDenied)])
async def test_a_lost_region_costs_nothing_but_a_log_line(
    *, installation: Any, clouds: Any, welcomed: Any, clock: Any, loss: str, error: type[Exception]
) -> None:
    """The other key serves; log, probes, numbers and doctor tell; when it is back, it is used without a restart."""
    lost, spare, cloud = installation.lost, installation.spare, installation.cloud
    getattr(cloud, loss)()
    with capture_logs() as logs:
        async with installation.serving(clock=clock) as house:
            async with welcomed(house) as worker:
                assert (await worker.lease("github/ci"))["value"] == "s3cret"
            told = [line.get("kms_key") for line in logs if line["log_level"] == "error"]
            assert lost in told
            assert spare not in told
            assert '"kms":"degraded"' in await get(house, "/readyz")
            assert f'tokenbroker_kms_breaker{{kms_key="{lost}"}}' in await get(house, "/metrics")
            assert {known.kms_key: known.last_error == "" for known in house.broker.vault.health()} == {
                lost: False,
                spare: True,
            }
            with pytest.raises(error):
                await house.services.keys.rotate("default", actor=ACTOR)
            await house.broker.reloading.apply(reread(installation, clouds, '[keyrings.more]\nkms_keys = ["SPARE"]\n'))
            cloud.recover()
            await comes_back(house)
            rotated = await house.services.keys.rotate("default", actor=ACTOR)
            assert [wrap.kms_key for wrap in rotated.data_key.wraps] == [lost, spare]
            cloud.recover()
            house.broker.vault.flush()
            async with welcomed(house) as worker:
                assert (await worker.lease("github/ci"))["value"] == "s3cret"
            assert cloud.unwraps() == 1
    assert {line["kms_key"] for line in logs if line["event"] == "kms_opens_again"} == {lost}


async def comes_back(house: Any) -> None:
    """Return when readiness shows that every KMS key opens, as time passes for the broker and for its SDKs."""

    async def well() -> bool:
        await house.elapse(2)
        return '"kms":"ok"' in await get(house, "/readyz")

    await house.until(well, within_s=60)


def reread(installation: Any, clouds: Any, sections: str) -> Any:
    """The configuration with these sections added."""
    keys = installation.lost, installation.spare
    installation.write(clouds, *keys, sections=sections.replace("SPARE", installation.spare))
    return clouds.read(installation.config)


async def test_a_lost_region_may_leave_the_configuration(installation: Any, clouds: Any, welcomed: Any) -> None:
    """A key that never opened is taken out by a reload, and rewrapping brings everything in line without it."""
    installation.cloud.hang_up()
    async with installation.serving() as house:
        installation.write(clouds, installation.spare)
        await house.broker.reloading.apply(clouds.read(installation.config))
        assert list(house.broker.kms) == [installation.spare]
        done = await house.services.rewrapper.rewrap("default", after=None, limit=100, actor=ACTOR)
        assert (len(done.done), done.failed) == (1, ())
        await house.services.rewrapper.rewrap_root(actor=ACTOR)
        await house.services.retirer.retire(installation.lost, actor=ACTOR)
        async with welcomed(house) as worker:
            assert (await worker.lease("github/ci"))["value"] == "s3cret"
    async with installation.serving() as house, welcomed(house) as worker:
        assert (await worker.lease("github/ci"))["value"] == "s3cret"


async def test_a_keyring_whose_only_key_is_lost_is_unavailable(
    *, installation: Any, clouds: Any, welcomed: Any, clock: Any
) -> None:
    """Its tokens are refused with a time to come again, others are served; nobody is told that nothing wrapped them."""
    lost, spare = installation.lost, installation.spare
    installation.write(clouds, spare, lost, sections=f'[keyrings.far]\nkms_keys = ["{lost}"]\n')
    async with installation.serving() as house:
        await house.put("github/far", b"distant", keyring="far")
    installation.cloud.hang_up()
    async with installation.serving(clock=clock) as house, welcomed(house) as worker:
        assert (await worker.lease("github/ci"))["value"] == "s3cret"
        refused = await worker.ask("lease", token="github/far")
        assert refused["code"] == "unavailable"
        assert refused["retry_after_s"] > 0
        assert "configure" not in refused["message"]
        installation.cloud.recover()
        await comes_back(house)
        assert (await worker.lease("github/far"))["value"] == "distant"


async def test_doctor_says_what_serves_meanwhile(installation: Any, clock: Any) -> None:
    """The lost key is a warning that says how to mend it; the list that is served without it is named."""
    installation.cloud.hang_up()
    findings = await examine(layout_of(data_dir=None, config=installation.config), clock)
    assert not [finding for finding in findings if finding.state == "failed"]
    told = [finding.said for finding in findings if finding.state == "warning"]
    assert any(installation.lost in said and "Mend the way to it" in said for said in told)
    assert any(f"served by {installation.spare}; without {installation.lost}" in said for said in told)


async def test_without_any_that_opens_the_root_it_does_not_start(installation: Any, clouds: Any) -> None:
    """The refusal names each key with what it said, and the remedy."""
    installation.write(clouds, installation.lost)
    installation.cloud.hang_up()
    with pytest.raises(StartRefused, match=re.escape(installation.lost.partition("?")[0])) as caught:
        async with installation.serving():
            pass
    assert "Start again when one answers" in str(caught.value)
