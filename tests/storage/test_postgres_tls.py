"""TLS to the database: the right server is let in, and every other is refused before a password is sent."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from storage.errors import Unreachable
from storage.port import Commit
from storage.postgres import open_postgres

HBA = b"hostssl all all 127.0.0.1/32 scram-sha-256\n"

ENCRYPTED = """\
SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'tokenbroker'"""


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A certificate authority of a test's own."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        """Its certificate, for who trusts it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, name: x509.GeneralName) -> dict[str, bytes]:
        """The files of a server of that name."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(
            "server", key, issuer=self, extension=x509.SubjectAlternativeName([name])
        ).public_bytes(serialization.Encoding.PEM)
        plain = serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        return {"server.crt": certificate, "server.key": pem}


def _authority(name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    extension = x509.BasicConstraints(ca=True, path_length=None)
    return Authority(key=key, certificate=_certificate(name, key, issuer=None, extension=extension))


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, *, issuer: Authority | None, extension: x509.ExtensionType
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2120, 1, 1, tzinfo=UTC))
        .add_extension(extension, critical=True)
        .sign(key if issuer is None else issuer.key, hashes.SHA256())
    )


@pytest.fixture(scope="module")
def authority() -> Authority:
    """The authority that signed the server's certificate."""
    return _authority("authority of the database")


@pytest.fixture(scope="module")
def server(postgres_servers: ModuleType, authority: Authority) -> Iterator[Any]:
    """A server that proves to be 127.0.0.1, and takes nobody in the clear."""
    files = authority.server(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    with postgres_servers.serving("ssl = on", files={**files, "pg_hba.conf": HBA}) as it:
        yield it


def _trusting(folder: Path, authority: Authority, mode: str = "verify-full") -> str:
    path = folder / "ca.pem"
    path.write_bytes(authority.pem)
    return f"?sslmode={mode}&sslrootcert={path}"


async def _open(url: str) -> None:
    async with open_postgres(url) as storage:
        await storage.commit(Commit())


async def test_the_right_server_is_let_in(server: Any, authority: Authority, tmp_path: Path) -> None:
    """With its authority and its name verified, the database opens over TLS."""
    url = server.url("postgres", options=_trusting(tmp_path, authority))
    async with open_postgres(url) as storage:
        await storage.check()
        seen = server.sql("postgres", ENCRYPTED)
    assert seen == "t"


async def test_another_authority_is_refused(server: Any, tmp_path: Path) -> None:
    """A certificate that the trusted authority did not sign is Unreachable, and the message says what to check."""
    with pytest.raises(Unreachable, match=r"not trusted.*sslrootcert"):
        await _open(server.url("postgres", options=_trusting(tmp_path, _authority("somebody else"))))


async def test_another_name_is_refused(postgres_servers: ModuleType, authority: Authority, tmp_path: Path) -> None:
    """A good certificate of another host is Unreachable; verify-ca alone lets it in."""
    with postgres_servers.serving("ssl = on", files=authority.server(x509.DNSName("other.example"))) as other:
        with pytest.raises(Unreachable, match="not trusted"):
            await _open(other.url("postgres", options=_trusting(tmp_path, authority)))
        await _open(other.url("postgres", options=_trusting(tmp_path, authority, "verify-ca")))


async def test_in_the_clear_a_server_of_tls_takes_nobody(server: Any) -> None:
    """A connection without TLS is Unreachable, and says where to look."""
    with pytest.raises(Unreachable, match=r"pg_hba\.conf"):
        await _open(server.url("postgres"))


async def test_a_server_without_tls_is_refused(postgres: Any, authority: Authority, tmp_path: Path) -> None:
    """Who asks for TLS speaks to nobody in the clear."""
    with pytest.raises(Unreachable, match="speaks no TLS"):
        await _open(postgres.url("postgres", options=_trusting(tmp_path, authority)))
