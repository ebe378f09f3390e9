"""Key URIs of Azure Key Vault are read strictly, and what is wrong with one is said without showing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kms.azure import open_azure
from kms.azure.uri import is_loopback, parse_uri
from kms.errors import BadKey

GOOD = "azure-kv:https://team.vault.azure.net/keys/broker"


def test_a_key_without_version_is_read() -> None:
    """Vault, host and name are told apart; without a version the newest is meant."""
    key = parse_uri(GOOD)
    assert (key.vault, key.host, key.name, key.version, key.ca_file) == (
        "https://team.vault.azure.net",
        "team.vault.azure.net",
        "broker",
        "",
        "",
    )


def test_version_port_and_ca_file_are_read() -> None:
    """A version, a port and a CA file (percent-decoded) are taken."""
    key = parse_uri("azure-kv:https://[::1]:8443/keys/broker/0a1b2c?ca-file=/etc/a%20b.pem")
    assert (key.vault, key.host, key.version, key.ca_file) == ("https://[::1]:8443", "[::1]", "0a1b2c", "/etc/a b.pem")


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


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
def test_loopback_is_known(host: str) -> None:
    """Hosts of this machine are known, whose name cannot match the resource that they sign in to."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["team.vault.azure.net", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1"]
)
def test_other_hosts_are_no_loopback(host: str) -> None:
    """A name that only begins like this machine's is another machine."""
    assert not is_loopback(host)
