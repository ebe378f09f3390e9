"""TLS: a proof is bound to the certificate that the worker saw, also while certificates are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.x509.oid import NameOID

from broker import serving
from broker.clock import SystemClock
from broker.errors import StartRefused
from broker.tls import Certificate


def make_certificate(folder: Path, name: str = "tls", *, passphrase: bytes | None = None) -> tuple[Path, Path]:
    """A fresh self-signed certificate for localhost, and its key."""
    key = generate_private_key(SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = SystemClock().now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    chain, secret = folder / f"{name}.pem", folder / f"{name}.key"
    lock = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    _replace(chain, certificate.public_bytes(serialization.Encoding.PEM))
    _replace(secret, key.private_bytes(serialization.Encoding.PEM, form, lock))
    return chain, secret


def _replace(path: Path, content: bytes) -> None:
    """As a certificate tool does: by renaming."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def digest(chain: Path) -> bytes:
    leaf = x509.load_pem_x509_certificates(chain.read_bytes())[0]
    return hashlib.sha256(leaf.public_bytes(serialization.Encoding.DER)).digest()


@pytest.fixture
def secure(open_house: Any, tmp_path: Path) -> Any:
    """Opens a house that serves TLS with a fresh certificate in tmp_path."""
    chain, key = make_certificate(tmp_path)
    return lambda **options: open_house(server__tls_cert=str(chain), server__tls_key=str(key), **options)


async def test_a_proof_over_the_certificate_that_was_seen_is_accepted(
    secure: Any, prepare: Any, wire: Any, tmp_path: Path
) -> None:
    """Over wss the binding is the leaf's digest, and a lease works as ever."""
    async with secure() as house:
        who = await prepare(house)
        assert house.url.startswith("https://")
        async with wire.dial(house.url) as worker:
            assert worker.binding == digest(tmp_path / "tls.pem")
            assert (await worker.handshake(who))["type"] == "welcome"
            assert (await worker.lease("github/ci"))["value"] == "s3cret"


@pytest.mark.parametrize("binding", [b"", b"x" * 32], ids=["none", "another"])
async def test_any_other_binding_is_refused(secure: Any, prepare: Any, wire: Any, binding: bytes) -> None:
    """A proof without binding, or over another certificate, was made on another connection."""
    async with secure() as house:
        who = await prepare(house)
        async with wire.dial(house.url) as worker:
            assert await worker.handshake(who, binding=binding) == {"type": "error", "code": "unauthenticated"}
            assert await worker.close_code() == 4401


async def test_a_man_in_the_middle_is_refused(secure: Any, prepare: Any, wire: Any, tmp_path: Path) -> None:
    """Somebody who terminates TLS with a certificate of his own and passes everything on gains nothing by it."""
    chain, key = make_certificate(tmp_path, "evil")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with secure() as house:
        who = await prepare(house)
        port = int(house.url.rpartition(":")[2])

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            upstream = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pass_on(reader, upstream[1]))
                tasks.create_task(_pass_on(upstream[0], writer))

        server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
        async with server:
            address = server.sockets[0].getsockname()
            async with wire.dial(f"https://127.0.0.1:{address[1]}") as worker:
                assert worker.binding == digest(chain)
                assert await worker.handshake(who) == {"type": "error", "code": "unauthenticated"}
        assert await house.sessions() == []


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_replaced_certificate_is_taken_up_while_serving(
    secure: Any, prepare: Any, wire: Any, tmp_path: Path, loop: str
) -> None:
    """Connections live on; one whose handshake was under way proves what it saw; new ones see and bind the new one."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(replace_while_serving(secure, prepare, wire, tmp_path))


async def replace_while_serving(secure: Any, prepare: Any, wire: Any, tmp_path: Path) -> None:
    async with secure() as house:
        who = await prepare(house)
        before = digest(tmp_path / "tls.pem")
        async with wire.dial(house.url) as old, wire.dial(house.url) as between:
            await old.handshake(who)
            make_certificate(tmp_path)
            house.broker.certificate.reload()
            after = digest(tmp_path / "tls.pem")
            assert before != after
            assert (await old.lease("github/ci"))["value"] == "s3cret"
            assert between.binding == before
            assert (await between.handshake(who))["type"] == "welcome"
            async with wire.dial(house.url) as new:
                assert new.binding == after
                assert (await new.handshake(who))["type"] == "welcome"


async def test_a_proof_over_the_former_certificate_is_refused_on_a_new_connection(
    secure: Any, prepare: Any, wire: Any, tmp_path: Path
) -> None:
    """Whoever got hold of the replaced key cannot stand in the middle of new connections."""
    async with secure() as house:
        who = await prepare(house)
        before = digest(tmp_path / "tls.pem")
        make_certificate(tmp_path)
        house.broker.certificate.reload()
        async with wire.dial(house.url) as worker:
            assert (await worker.handshake(who, binding=before))["code"] == "unauthenticated"


async def test_files_that_do_not_fit_together_change_nothing(
    secure: Any, prepare: Any, wire: Any, tmp_path: Path
) -> None:
    """Half of a replacement, or rubbish, leaves the certificate in force; the whole one is taken up afterwards."""
    async with secure() as house:
        who = await prepare(house)
        before = digest(tmp_path / "tls.pem")
        chain, key = make_certificate(tmp_path, "next")
        for content in (chain.read_bytes(), b"rubbish", b""):
            _replace(tmp_path / "tls.pem", content)
            house.broker.certificate.reload()
            async with wire.dial(house.url) as worker:
                assert worker.binding == before
                assert (await worker.handshake(who))["type"] == "welcome"
        _replace(tmp_path / "tls.pem", chain.read_bytes())
        _replace(tmp_path / "tls.key", key.read_bytes())
        house.broker.certificate.reload()
        async with wire.dial(house.url) as worker:
            assert worker.binding == digest(chain)
            assert (await worker.handshake(who))["type"] == "welcome"


async def test_tls_1_1_is_not_spoken(secure: Any) -> None:
    """The least version is 1.2."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSVersion"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    async with secure() as house:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", int(house.url.rpartition(":")[2]), ssl=old)


async def test_behind_a_proxy_its_certificate_is_the_binding(
    open_house: Any, prepare: Any, wire: Any, tmp_path: Path
) -> None:
    """A broker that is told the proxy's certificate takes proofs over it."""
    chain, _ = make_certificate(tmp_path, "proxy")
    async with open_house(server__proxy_certs=str(chain)) as house:
        who = await prepare(house)
        async with wire.dial(house.url) as worker:
            assert (await worker.handshake(who, binding=digest(chain)))["type"] == "welcome"
        async with wire.dial(house.url) as worker:
            assert (await worker.handshake(who, binding=os.urandom(32)))["code"] == "unauthenticated"


def test_a_key_with_a_passphrase_refuses_to_start(tmp_path: Path) -> None:
    """It is an error that says so, not a question on a terminal that nobody sees."""
    chain, key = make_certificate(tmp_path, passphrase=b"hush")
    with pytest.raises(StartRefused, match="sealed with a passphrase"):
        Certificate(chain=chain, key=key)


@pytest.mark.parametrize("which", ["missing", "rubbish", "foreign key"])
def test_a_certificate_that_cannot_be_used_refuses_to_start(tmp_path: Path, which: str) -> None:
    """The message names the file."""
    chain, key = make_certificate(tmp_path)
    if which == "missing":
        chain.unlink()
    elif which == "rubbish":
        chain.write_bytes(b"rubbish")
    else:
        key = make_certificate(tmp_path, "other")[1]
    with pytest.raises(StartRefused, match=r"tls\.pem"):
        Certificate(chain=chain, key=key)


async def test_a_peer_that_never_begins_with_tls_is_let_go(secure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the handshake of TLS nothing is known of a peer, so it may not keep its connection for long."""
    monkeypatch.setattr(serving, "_TLS_S", 0.3)
    async with secure() as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(house.url.rpartition(":")[2]))
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(3):
                assert await reader.read() == b""
        writer.close()
