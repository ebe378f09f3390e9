"""Where a client connects, and what TLS adds to the proof."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tokenbroker_client import BadAddress, Broker, PlaintextRefused, Unauthenticated, UntrustedCertificate
from tokenbroker_client.endpoint import parse_endpoint
from tokenbroker_client.testing import FakeBroker

Dial = Callable[..., AbstractAsyncContextManager[Broker]]


@pytest.mark.parametrize(
    ("url", "connect_url"),
    [
        ("wss://broker.example", "wss://broker.example/v1/connect"),
        ("https://broker.example/", "wss://broker.example/v1/connect"),
        ("https://broker.example:8420/tokens", "wss://broker.example:8420/tokens/v1/connect"),
        ("wss://broker.example/v1/connect", "wss://broker.example/v1/connect"),
        ("http://127.0.0.1:8420", "ws://127.0.0.1:8420/v1/connect"),
        ("ws://[::1]:8420", "ws://[::1]:8420/v1/connect"),
        ("ws://localhost", "ws://localhost/v1/connect"),
    ],
)
def test_addresses_are_understood(url: str, connect_url: str) -> None:
    """Either family of schemes works, with or without the path."""
    assert parse_endpoint(url).connect_url == connect_url


def test_enrolment_has_an_address() -> None:
    """The same URL tells where to enrol."""
    assert parse_endpoint("wss://broker.example/tokens").enroll_url == "https://broker.example/tokens/v1/enroll"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker.example",
        "ftp://broker.example",
        "ws://",
        "wss://broker.example:99999",
        "wss://user:secret@broker.example",
        "wss://broker.example?token=secret",
        "wss://broker.example#secret",
        "wss://[::1",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    """A URL that is no broker's, or that tempts to carry a secret, is refused without repeating it."""
    with pytest.raises(BadAddress) as caught:
        parse_endpoint(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["broker.example", "10.0.0.1", "[fe80::1]", "localhost.example"])
def test_plaintext_stays_on_loopback(host: str) -> None:
    """Without TLS every token would be readable on the way, so that is refused unless insisted upon."""
    with pytest.raises(PlaintextRefused):
        parse_endpoint(f"ws://{host}")
    assert parse_endpoint(f"ws://{host}", insecure_plaintext=True).connect_url == f"ws://{host}/v1/connect"


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for localhost, as both sides need it."""

    der: bytes
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """Make a certificate that is valid for an hour."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    present = datetime.datetime.now(datetime.UTC)  # noqa: TID251 - TLS libraries look at the real clock
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(present - datetime.timedelta(minutes=5))
        .not_valid_after(present + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, None)
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        made.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cadata=made.public_bytes(Encoding.PEM).decode("ascii"))
    return Certificate(made.public_bytes(Encoding.DER), server, client)


async def test_the_proof_is_bound_to_the_certificate(dial: Dial, certificate: Certificate) -> None:
    """Over TLS the worker signs the certificate it saw, and a broker that shows that one accepts."""
    async with FakeBroker(tls=certificate.server, certificate_der=certificate.der) as fake:
        fake.put("github/ci", "v1")
        async with dial(fake, tls=certificate.client) as broker, broker.lease("github/ci") as lease:
            assert fake.url.startswith("wss://")
            assert lease.value == "v1"


async def test_a_proof_for_another_certificate_is_worthless(dial: Dial, certificate: Certificate) -> None:
    """A broker that stands behind another certificate than the one shown, as behind an interceptor, refuses."""
    async with FakeBroker(tls=certificate.server, certificate_der=b"another certificate") as fake:
        with pytest.raises(Unauthenticated):
            async with dial(fake, tls=certificate.client):
                pass


async def test_an_unverified_certificate_is_refused_at_once(dial: Dial, certificate: Certificate) -> None:
    """A certificate that the system does not trust raises from `connect`, before anything is said."""
    async with FakeBroker(tls=certificate.server, certificate_der=certificate.der) as fake:
        with pytest.raises(UntrustedCertificate, match="localhost"):
            async with dial(fake):
                pass
        assert fake.attempts == 0
