"""URIs of Google Cloud KMS keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from kms.errors import BadKey
from kms.gcp import HOST, open_gcp, parse_uri

NAME = "projects/p-1/locations/europe-west3/keyRings/ring/cryptoKeys/Key_1"


def test_a_name_alone_means_google() -> None:
    """Without options the endpoint is Google's, over TLS, with the CAs that gRPC trusts."""
    where = parse_uri(f"gcp-kms:{NAME}")
    assert (where.name, where.endpoint, where.ca_file, where.plain) == (NAME, HOST, None, False)


def test_a_project_may_belong_to_a_domain_or_be_a_number() -> None:
    """Google's older forms of project ids are names as well."""
    for project in ("example.com:p-1", "123456789012"):
        name = NAME.replace("p-1", project)
        assert parse_uri(f"gcp-kms:{name}").name == name


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]"])
def test_only_loopback_is_spoken_to_without_tls(host: str) -> None:
    """An endpoint on this machine may be plain; with a ca-file it is not."""
    uri = f"gcp-kms:{NAME}?endpoint={host}:8443"
    assert parse_uri(uri).plain
    assert not parse_uri(f"{uri}&ca-file=/ca.pem").plain


@pytest.mark.parametrize(
    "host",
    [
        "kms.example.com",
        "localhost",
        "10.0.0.1",
        "[2001:db8::1]",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "128.0.0.1",
    ],
)
def test_no_other_host_is_spoken_to_without_tls(host: str) -> None:
    """Whatever is not this machine gets TLS, and the login only over it."""
    assert not parse_uri(f"gcp-kms:{NAME}?endpoint={host}:443").plain


def test_a_ca_file_is_a_path() -> None:
    """Percent-encoding is undone in it."""
    assert parse_uri(f"gcp-kms:{NAME}?ca-file=/a%26b.pem").ca_file == Path("/a&b.pem")


@pytest.mark.parametrize(
    "uri",
    [
        "gcp-kms:",
        "gcp-kms:K",
        f"gcp-kms:/{NAME}",
        f"gcp-kms://cloudkms.googleapis.com/{NAME}",
        f"gcp-kms:{NAME}/",
        f"gcp-kms:{NAME}/cryptoKeyVersions/1",
        f"gcp-kms:{NAME}\n",
        f"gcp-kms:{NAME.replace('Key_1', '')}",
        f"gcp-kms:{NAME.replace('Key_1', 'k' * 64)}",
        f"gcp-kms:{NAME.replace('Key_1', 'é')}",
        f"gcp-kms:{NAME.replace('/locations/europe-west3', '')}",
        f"gcp-kms:{NAME.replace('ring', '..')}",
        f"aws-kms:{NAME}",
        f"gcp-kms:{NAME}?token=canary",
        f"gcp-kms:{NAME}?endpoint=",
        f"gcp-kms:{NAME}?endpoint=canary",
        f"gcp-kms:{NAME}?endpoint=https://canary:443",
        f"gcp-kms:{NAME}?endpoint=unix:/canary",
        f"gcp-kms:{NAME}?endpoint=canary:443/path",
        f"gcp-kms:{NAME}?endpoint=canary:0",
        f"gcp-kms:{NAME}?endpoint=canary:65536",
        f"gcp-kms:{NAME}?endpoint=a:1&endpoint=canary:2",
        f"gcp-kms:{NAME}?ca-file=%00canary",
        f"gcp-kms:{NAME}?ca-file=/missing/canary-free",
    ],
)
async def test_a_wrong_uri_is_a_bad_key_and_shows_no_option_value(uri: str) -> None:
    """Whatever is wrong with it, the error names the key as far as it is one."""
    with pytest.raises(BadKey) as caught:
        async with open_gcp(uri):
            pass
    assert caught.value.kms_key == (uri if "missing" in uri else f"{uri.partition(':')[0]}:…")
    assert "canary" not in str(caught.value).replace("canary-free", "")


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\0" * (1024 * 1024 + 1)], ids=["empty", "text", "large"])
async def test_a_ca_file_without_certificates_is_a_bad_key(tmp_path: Path, content: bytes) -> None:
    """An empty, foreign or oversized file is refused before anything is asked; the message names it."""
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    with pytest.raises(BadKey, match=r"ca\.pem"):
        async with open_gcp(f"gcp-kms:{NAME}?ca-file={path}"):
            pass
