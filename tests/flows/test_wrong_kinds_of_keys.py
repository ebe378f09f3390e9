"""A KMS key that exists and is of no use: no cluster is founded on it, no broker starts or goes on with it."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker.clock import SystemClock
from broker.doctor.examining import examine
from broker.errors import StartRefused
from broker.setup.layout import layout_of


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """uri: names the key. said: what is wrong with it, or would be right."""

    uri: str
    said: str

    def check(self, message: str) -> None:
        """The message names the key and says that."""
        assert self.uri.partition("?")[0] in message, message
        assert re.search(self.said, message), message


@pytest.fixture
def signed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a developer's clouds is in the environment."""
    for name in [
        each for each in os.environ if each.startswith(("AZURE_", "GOOGLE_")) or each.lower().endswith("_proxy")
    ]:
        monkeypatch.delenv(name)
    for bound in ("adapter.CALL_S", "connection.CONNECT_S", "connection.ANSWER_S"):
        monkeypatch.setattr(f"kms.azure.{bound}", 30.0)  # a slow machine is no outage


@pytest.fixture
async def wrong(
    *, request: pytest.FixtureRequest, signed_in: None, aws_environment: None, tmp_path: Path, monkeypatch: Any
) -> AsyncIterator[Wrong]:
    """A key of the wrong kind, of each scheme that asks somebody or reads something."""
    part = request.getfixturevalue
    home = tmp_path / "wrong"
    home.mkdir(mode=0o700)
    async with AsyncExitStack() as stack:
        match request.param:
            case "local":
                path = home / "kms.key"
                path.touch(mode=0o600)
                path.write_text('format = "tokenbroker/kms-local-policy/v1"\n')
                yield Wrong(uri=f"local:{path}", said="no key file, or a damaged one.* restore it from its copy")
            case "aws-kms":
                moto = part("moto")
                arn = moto.create_key(KeySpec="RSA_2048")
                yield Wrong(uri=moto.uri(arn), said="only SYMMETRIC_DEFAULT keys")
            case "transit":
                key = part("bao_servers").TransitKey(bao=part("bao"), folder=home, type="ed25519")
                yield Wrong(uri=key.uri(), said="aes256-gcm96")
            case "pkcs11":
                hsm = part("softhsm")
                token = hsm.token()
                hsm.rsa(token, "small", bits=1024)
                yield Wrong(uri=hsm.uri(token, "small"), said="1024 bits; make one of 2048")
            case "azure-kv":
                part_of = part("azure_standin")
                vault = await stack.enter_async_context(part_of.serving(home))
                monkeypatch.setenv("IDENTITY_ENDPOINT", vault.identity_url)
                monkeypatch.setenv("IDENTITY_HEADER", part_of.IDENTITY_HEADER)
                vault.add("curve", 1, kty="EC-HSM")
                yield Wrong(uri=vault.uri("curve"), said="make one of type RSA")
            case "gcp-kms":
                part_of = part("gcp_standin")
                google = await stack.enter_async_context(part_of.serving())
                key = google.key("signs", purpose=part_of.Purpose.ASYMMETRIC_SIGN)
                yield Wrong(uri=google.uri(key), said="ENCRYPT_DECRYPT|encrypt")


SCHEMES = ["local", "aws-kms", "transit", "pkcs11", "azure-kv", "gcp-kms"]


def named_in(config: Path, wrong: Wrong) -> None:
    """The key is that of a further keyring."""
    with config.open("a") as file:
        file.write(f'\n[keyrings.more]\nkms_keys = ["{wrong.uri}"]\n')


@pytest.mark.parametrize("wrong", SCHEMES, indirect=True)
async def test_no_cluster_is_founded_on_it(wrong: Wrong, clouds: Any, tmp_path: Path) -> None:
    """`init` refuses, and pins nothing."""
    config = tmp_path / "data" / "broker.toml"
    config.parent.mkdir(mode=0o700)
    clouds.write_config(config, [wrong.uri])
    with pytest.raises(StartRefused) as caught:
        await clouds.found(config)
    wrong.check(str(caught.value))
    assert "id =" not in config.read_text()


@pytest.mark.parametrize("wrong", SCHEMES, indirect=True)
async def test_no_broker_starts_with_it(wrong: Wrong, config: Path, open_house: Any) -> None:
    """Nor if only one keyring would have it."""
    named_in(config, wrong)
    with pytest.raises(StartRefused) as caught:
        async with open_house():
            pass
    wrong.check(str(caught.value))


@pytest.mark.parametrize("wrong", SCHEMES, indirect=True)
async def test_the_doctor_finds_it(wrong: Wrong, config: Path) -> None:
    """It says what to do: mend what the URI names, or take it out."""
    named_in(config, wrong)
    findings = await examine(layout_of(data_dir=None, config=config), SystemClock())
    (found,) = [each for each in findings if each.check == "KMS" and each.state == "failed"]
    wrong.check(found.said)
    assert "or take it out of the configuration" in found.said


@pytest.mark.parametrize("wrong", SCHEMES, indirect=True)
async def test_no_reload_takes_it_over(wrong: Wrong, clouds: Any, house: Any, welcomed: Any) -> None:
    """The broker serves on as before."""
    before = list(house.broker.kms)
    named_in(house.config, wrong)
    with pytest.raises(StartRefused) as caught:
        await house.broker.reloading.apply(clouds.read(house.config))
    wrong.check(str(caught.value))
    assert list(house.broker.kms) == before
    async with welcomed(house) as worker:
        assert (await worker.lease("github/ci"))["value"] == "s3cret"
