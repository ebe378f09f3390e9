"""Key URIs of Azure Key Vault are read strictly, and what is wrong with one is said without showing it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from kms.azure import open_azure
from kms.azure.uri import parse_uri
from kms.errors import BadKey

GOOD = "azure-kv:https://team.vault.azure.net/keys/broker"


def test_a_key_without_version_is_read() -> None:
    """Vault and name are told apart; without a version the newest is meant."""
    key = parse_uri(GOOD)
    assert (key.vault, key.name, key.version, key.ca_file) == (
        "https://team.vault.azure.net",
        "broker",
        "",
        "",
    )


def test_version_port_and_ca_file_are_read() -> None:
    """A version, a port and a CA file (percent-decoded) are taken."""
    key = parse_uri("azure-kv:https://[::1]:8443/keys/broker/0a1b2c?ca-file=/etc/a%20b.pem")
    assert (key.vault, key.version, key.ca_file) == ("https://[::1]:8443", "0a1b2c", "/etc/a b.pem")


@pytest.mark.parametrize(
    "uri",
    [
        "azure-kv:",
        "azure-kv:team/broker",
        "azure-kv:http://team.vault.azure.net/keys/broker",
        "azure-kv:http://127.0.0.1/keys/broker",
        "azure-kv:HTTPS://team.vault.azure.net/keys/broker",
        "azure-kv:https:///keys/broker",
        "azure-kv:https://team.vault.azure.net",
        "azure-kv:https://team.vault.azure.net/",
        "azure-kv:https://team.vault.azure.net/keys",
        "azure-kv:https://team.vault.azure.net/keys/",
        "azure-kv:https://team.vault.azure.net/keys/broker/",
        "azure-kv:https://team.vault.azure.net/keys/broker/v1/wrapkey",
        "azure-kv:https://team.vault.azure.net/secrets/broker",
        "azure-kv:https://team.vault.azure.net/keys/../secrets/broker",
        "azure-kv:https://team.vault.azure.net/keys/a%2Fb",
        "azure-kv:https://team.vault.azure.net/keys/broker#part",
        "azure-kv:https://team.vault.azure.net\\@evil.example/keys/broker",
        "azure-kv:https://user:hunter2@team.vault.azure.net/keys/broker",
        "azure-kv:https://team.vault.azure.net:0/keys/broker",
        "azure-kv:https://team.vault.azure.net:65536/keys/broker",
        "azure-kv:https://tëam.vault.azure.net/keys/broker",
        f"{GOOD}?ca-file=",
        f"{GOOD}?ca-file=/a&ca-file=/b",
        f"{GOOD}?client-secret=hunter2",
        f"{GOOD}?ca-file=/a%00b",
        "azure-kv:https://team.vault.azure.net/keys/" + "k" * 128,
        "azure:https://team.vault.azure.net/keys/broker",
    ],
)
async def test_a_malformed_uri_is_a_bad_key(uri: str) -> None:
    """Anything but an https address of a key, with known options, is BadKey; no password of it is shown."""
    with pytest.raises(BadKey) as caught:
        async with open_azure(uri):
            pass
    assert caught.value.kms_key
    assert "hunter2" not in str(caught.value)


async def test_a_ca_file_that_is_none_is_a_bad_key(tmp_path: Path) -> None:
    """A CA file that is missing, or holds no certificate, is BadKey, and nothing is asked."""
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    for path in (tmp_path / "missing.pem", empty):
        with pytest.raises(BadKey, match="ca-file"):
            async with open_azure(f"{GOOD}?ca-file={path}"):
                pass


def test_the_how_to_shows_uris_that_are_read() -> None:
    """Every key URI in the configuration of the how-to is one."""
    page = (Path(__file__).parents[2] / "docs/howto/azure-key-vault.md").read_text()
    shown = [
        uri
        for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
        for uri in tomllib.loads(block)["kms"]["keys"]
    ]
    assert shown
    for uri in shown:
        assert parse_uri(uri).name == "data-keys"
