"""The URI of a transit key: what is read from it, and what is refused before anybody is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from kms.catalog import open_kms
from kms.errors import BadKey
from kms.transit.uri import parse_uri


def test_a_uri_says_where_the_key_is() -> None:
    """The last segment is the key, those before it are the mount."""
    found = parse_uri("transit:https://vault.example:8200/team/transit/tokens")
    assert (found.origin, found.mount, found.key) == ("https://vault.example:8200", "team/transit", "tokens")
    assert found.encrypted
    assert (found.token_file, found.role_id, found.namespace, found.worker_role) == (None, None, None, None)


def test_options_are_read() -> None:
    """Every option has its place, percent-encoding undone."""
    found = parse_uri(
        "transit:https://[::1]:8200/transit/tokens?role_id=r-1&secret_id_file=/run/a%20b&approle_mount=ci/approle"
        "&namespace=team/one&ca_file=/etc/ca.pem&worker_role=workers"
    )
    assert (found.role_id, found.secret_id_file, found.approle_mount) == ("r-1", Path("/run/a b"), "ci/approle")
    assert (found.namespace, found.ca_file, found.worker_role) == ("team/one", Path("/etc/ca.pem"), "workers")


@pytest.mark.parametrize(
    "uri",
    [
        "transit:",
        "transit:transit/tokens",
        "transit:ftp://127.0.0.1:8200/transit/tokens",
        "transit:https://vault.example/transit/tokens",
        "transit:https://vault..example:8200/transit/tokens",
        "transit:https://-vault:8200/transit/tokens",
        "transit:https://[::g]:8200/transit/tokens",
        "transit:https://[127.0.0.1]:8200/transit/tokens",
        "transit:https://vault.example:0/transit/tokens",
        "transit:https://vault.example:65536/transit/tokens",
        "transit:https://vault.example:8200",
        "transit:https://vault.example:8200/",
        "transit:https://vault.example:8200/tokens",
        "transit:https://vault.example:8200/transit/",
        "transit:https://vault.example:8200//tokens",
        "transit:https://vault.example:8200/transit/../sys/tokens",
        "transit:https://vault.example:8200/transit/./tokens",
        "transit:https://vault.example:8200/transit/%2e%2e/tokens",
        "transit:https://vault.example:8200/transit/tokens#there",
        "transit:https://vault.example:8200/transit/to kens",
        "transit:https://vault.example:8200/transit/tökens",
        "transit:https://vault.example:8200/transit/tokens\n",
        "transit:https://vault.example:8200/a/b/c/d/e/f/g/h/tokens",
        "transit:https://user:secret@vault.example:8200/transit/tokens",
        "transit:https://vault.example:8200@evil.example:8200/transit/tokens",
        "transit:http://vault.example:8200/transit/tokens",
        "transit:http://localhost:8200/transit/tokens",
        "transit:http://10.0.0.1:8200/transit/tokens",
        "transit:https://v:1/m/k?token=s.secret",
        "transit:https://v:1/m/k?token_file=",
        "transit:https://v:1/m/k?token_file=/a&token_file=/b",
        "transit:https://v:1/m/k?token_file=/a%00b",
        "transit:https://v:1/m/k?role_id=r",
        "transit:https://v:1/m/k?secret_id_file=/a",
        "transit:https://v:1/m/k?role_id=r&secret_id_file=/a&token_file=/b",
        "transit:https://v:1/m/k?role_id=r%0as&secret_id_file=/a",
        "transit:https://v:1/m/k?approle_mount=approle",
        "transit:https://v:1/m/k?namespace=../root",
        "transit:https://v:1/m/k?namespace=a%0d%0aX-Vault-Token:b",
        "transit:https://v:1/m/k?worker_role=a/b",
        "transit:http://127.0.0.1:1/m/k?ca_file=/a",
    ],
)
async def test_a_malformed_uri_is_a_bad_key(uri: str) -> None:
    """What is not exactly such a URI is refused with the KMS key's name, and no secret of it is shown."""
    with pytest.raises(BadKey) as caught:
        async with open_kms(uri):
            pass
    assert caught.value.kms_key
    assert "s.secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "[::1]"])
def test_http_is_for_loopback_addresses(host: str) -> None:
    """A loopback address may be asked without TLS."""
    assert not parse_uri(f"transit:http://{host}:8200/transit/tokens").encrypted
