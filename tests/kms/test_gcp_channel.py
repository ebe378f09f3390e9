"""The way to Google Cloud KMS: event loops, deadlines, cancellation, outages, TLS, the login, and what is logged."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import json
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from google.auth.exceptions import GoogleAuthError, MutualTLSChannelError, RefreshError, TransportError

from broker.vault.settings import VaultSettings
from kms import gcp as adapter
from kms.errors import Denied, KmsError, Unavailable
from kms.gcp import open_gcp
from kms.port import Kms

KEY = b"canary-key-material-32-bytes-ok!"
CONTEXT = {"keyring": "channel"}
PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
CLEAR = serialization.NoEncryption()


async def round_trip(kms: Kms) -> bytes:
    """What comes back of KEY."""
    return await kms.unwrap(await kms.wrap(KEY, CONTEXT), CONTEXT)


@pytest.fixture
async def kms(gcp: Any) -> AsyncIterator[Kms]:
    """A key at the stand-in."""
    async with open_gcp(gcp.uri(gcp.key())) as opened:
        yield opened


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_grpc_works_under_both_event_loops(gcp_standin: Any, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The broker serves under uvloop, its other commands under asyncio; no callback fails in either."""
    complaints: list[object] = []

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        async with gcp_standin.serving() as gcp, open_gcp(gcp.uri(gcp.key())) as kms:
            async with asyncio.TaskGroup() as group:
                trips = [group.create_task(round_trip(kms)) for _ in range(20)]
            assert [trip.result() for trip in trips] == [KEY] * 20
        gc.collect()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(story())
    assert complaints == []


async def test_silence_ends_in_time(gcp: Any, kms: Kms, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and never answers is Unavailable after the call's own deadline, and usable afterwards."""
    wrap = await kms.wrap(KEY, CONTEXT)
    gcp.hang.add("Decrypt")
    with monkeypatch.context() as patch:
        patch.setattr(adapter, "CALL_TIMEOUT_S", 0.2)
        with pytest.raises(Unavailable) as caught:
            await kms.unwrap(wrap, CONTEXT)
    assert caught.value.kms_key == kms.uri
    gcp.hang.clear()
    assert await kms.unwrap(wrap, CONTEXT) == KEY


def test_calls_end_before_the_broker_gives_up() -> None:
    """The adapter's deadline is under the broker's, so that its own error is the one that is seen."""
    assert VaultSettings().call_s > adapter.CALL_TIMEOUT_S


async def test_a_call_that_is_cancelled_while_google_works_harms_no_other(gcp: Any, kms: Kms) -> None:
    """The channel stays open, and calls beside it are answered."""
    wrap = await kms.wrap(KEY, CONTEXT)
    gcp.hang.add("Decrypt")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(kms.unwrap(wrap, CONTEXT))
        await gcp.hanging.wait()
        beside = group.create_task(kms.wrap(KEY, CONTEXT))
        await beside
        task.cancel()
    assert task.cancelled()
    gcp.hang.clear()
    assert await kms.unwrap(wrap, CONTEXT) == KEY


async def test_a_server_that_went_and_came_back_is_found_again(gcp: Any, gcp_standin: Any) -> None:
    """While it is down calls fail at once; a few seconds after its return the same key serves again."""
    async with gcp_standin.listening(gcp):
        port = int(gcp.address.rpartition(":")[2])
        opening = open_gcp(gcp.uri(gcp.key()))
        kms = await opening.__aenter__()
        wrap = await kms.wrap(KEY, CONTEXT)
    with pytest.raises(Unavailable):
        await kms.unwrap(wrap, CONTEXT)
    async with gcp_standin.listening(gcp, port=port), asyncio.timeout(30):
        while True:
            try:
                assert await kms.unwrap(wrap, CONTEXT) == KEY
                break
            except Unavailable:
                await asyncio.sleep(0.05)  # gRPC counts its back-off on the machine's clock
        await opening.__aexit__(None, None, None)


async def test_a_closed_key_answers_no_more(gcp: Any) -> None:
    """Its channel is closed with it, and nothing reaches the server."""
    async with open_gcp(gcp.uri(gcp.key())) as kms:
        pass
    before = len(gcp.calls)
    with pytest.raises(Exception, match="closed"):
        await kms.wrap(KEY, CONTEXT)
    assert len(gcp.calls) == before


async def test_no_plaintext_is_logged_even_when_everything_is(
    gcp: Any, kms: Kms, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK logs requests and answers at DEBUG; ours it does not, however its loggers are set."""
    for name in ("google", "google.cloud", "google.cloud.kms_v1"):
        logger = logging.getLogger(name)
        caplog.set_level(logging.DEBUG, logger=name)
        logger.addHandler(caplog.handler)
    caplog.set_level(logging.DEBUG)
    try:
        assert await round_trip(kms) == KEY
    finally:
        for name in ("google", "google.cloud", "google.cloud.kms_v1"):
            logging.getLogger(name).removeHandler(caplog.handler)
    records = [str(vars(record)) for record in caplog.records]
    assert not any("canary" in record or "Y2FuYXJ5" in record for record in records)


def _certificate(name: str) -> tuple[bytes, bytes]:
    """A private key and a certificate that it signed itself, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2049, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(PEM, PKCS8, CLEAR), certificate.public_bytes(PEM)


@pytest.fixture
async def login(gcp_standin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A login for service accounts, and the credentials file of one in the environment."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with gcp_standin.logging_in() as login:
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(PEM, PKCS8, CLEAR)
        credentials = {
            "type": "service_account",
            "project_id": "laws-1",
            "private_key_id": "1",
            "private_key": private.decode(),
            "client_email": "broker@laws-1.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": login.url,
        }
        path = tmp_path / "credentials.json"
        path.write_text(json.dumps(credentials))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        yield login


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    """Where the certificate of `secure` is."""
    return tmp_path / "ca.pem"


@pytest.fixture
async def secure(gcp_standin: Any, ca_file: Path) -> AsyncIterator[Any]:
    """A stand-in with TLS."""
    private, certificate = _certificate("standin")
    ca_file.write_bytes(certificate)
    async with gcp_standin.serving(tls=(private, certificate)) as standin:
        yield standin


async def test_over_tls_each_call_carries_the_login(secure: Any, ca_file: Path, login: Any) -> None:
    """Google's library finds the account; one token serves many calls."""
    uri = secure.uri(secure.key(), ca_file=str(ca_file))
    async with open_gcp(uri) as kms, asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(round_trip(kms))
    assert {call["authorization"] for call in secure.metadata} == {"Bearer access-1"}
    assert login.calls == 1


async def test_no_login_leaves_this_machine_in_the_clear(gcp: Any, login: Any) -> None:
    """Without TLS there is no login, although credentials are there to be found."""
    async with open_gcp(gcp.uri(gcp.key())) as kms:
        await kms.check()
    assert login.calls == 0
    assert not any("authorization" in call for call in gcp.metadata)


async def test_a_certificate_of_an_unknown_ca_is_not_trusted(
    secure: Any, ca_file: Path, login: Any, tmp_path: Path
) -> None:
    """The message says which options to look at; nothing is sent, and with the right CA the same server serves."""
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(_certificate("other")[1])
    key = secure.key()
    async with open_gcp(secure.uri(key, ca_file=str(wrong))) as kms:
        with pytest.raises(Unavailable, match="not from a trusted CA") as caught:
            await kms.wrap(KEY, CONTEXT)
        assert caught.value.kms_key == kms.uri
    assert secure.calls == []
    async with open_gcp(secure.uri(key, ca_file=str(ca_file))) as kms:
        assert await round_trip(kms) == KEY


@pytest.mark.parametrize(
    "refusal",
    [
        (400, {"error": "invalid_grant", "error_description": "canary"}),
        (401, {"error": "unauthorized_client"}),
        (200, {"nothing": "to see"}),
    ],
    ids=["revoked", "stranger", "nonsense"],
)
async def test_a_refused_login_is_denied(
    secure: Any, ca_file: Path, login: Any, refusal: tuple[int, dict[str, object]]
) -> None:
    """An account that is disabled, or whose key is revoked, is no outage; Google's text is not repeated."""
    login.status, login.answer = refusal
    async with open_gcp(secure.uri(secure.key(), ca_file=str(ca_file))) as kms:
        with pytest.raises(Denied) as caught:
            await kms.wrap(KEY, CONTEXT)
    assert caught.value.kms_key == kms.uri
    assert "canary" not in str(caught.value)
    assert secure.calls == []


def _caused(error: GoogleAuthError, cause: Exception) -> GoogleAuthError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RefreshError("the login answered 503", retryable=True), Unavailable),
        (_caused(RefreshError("no metadata server"), TransportError("timeout")), Unavailable),
        (_caused(RefreshError("no account attached"), TransportError("404", object())), Denied),
        (MutualTLSChannelError("no certificate"), Denied),
        (GoogleAuthError("something new"), Denied),
    ],
    ids=["retryable", "metadata silent", "metadata refuses", "mtls", "unknown"],
)
async def test_what_google_s_login_library_raises_has_one_meaning(error: GoogleAuthError, kind: type[KmsError]) -> None:
    """Cases that need a machine of Google's, or minutes: only what did not answer is Unavailable."""
    with pytest.raises(KmsError) as caught, adapter._translated():
        raise error
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error


async def test_a_login_that_does_not_answer_is_unavailable(
    secure: Any, ca_file: Path, login: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens where the tokens come from: that is an outage, and cached keys serve on."""
    path = tmp_path / "elsewhere.json"
    credentials = json.loads((tmp_path / "credentials.json").read_text())
    path.write_text(json.dumps({**credentials, "token_uri": "http://127.0.0.1:1/token"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    async with open_gcp(secure.uri(secure.key(), ca_file=str(ca_file))) as kms:
        with pytest.raises(Unavailable):
            await kms.wrap(KEY, CONTEXT)


async def test_a_slow_login_serves_all_who_wait_and_outlives_who_left(
    secure: Any, ca_file: Path, login: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers give up in time, or are cancelled; the one request for a token goes on, and serves the others."""
    login.released.clear()
    monkeypatch.setattr(adapter, "CALL_TIMEOUT_S", 0.05)
    async with open_gcp(secure.uri(secure.key(), ca_file=str(ca_file))) as kms:
        with pytest.raises(Unavailable):
            await kms.wrap(KEY, CONTEXT)
        monkeypatch.setattr(adapter, "CALL_TIMEOUT_S", 30)
        async with asyncio.TaskGroup() as group:
            leaving, *staying = [group.create_task(round_trip(kms)) for _ in range(5)]
            for _ in range(10):
                await asyncio.sleep(0)
            leaving.cancel()
            login.released.set()
    assert leaving.cancelled()
    assert [task.result() for task in staying] == [KEY] * 4
    assert login.calls == 1


async def test_missing_credentials_are_denied_and_found_later(
    secure: Any, ca_file: Path, login: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the variable; a file that is put there afterwards is used without a restart."""
    path = tmp_path / "later.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    async with open_gcp(secure.uri(secure.key(), ca_file=str(ca_file))) as kms:
        with pytest.raises(Denied, match="GOOGLE_APPLICATION_CREDENTIALS"):
            await kms.wrap(KEY, CONTEXT)
        path.write_bytes((tmp_path / "credentials.json").read_bytes())
        assert await round_trip(kms) == KEY


async def test_nothing_of_the_login_is_logged(
    secure: Any, ca_file: Path, login: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The login library logs what it sends at DEBUG, and that is good for a token of whoever reads it."""
    google = logging.getLogger("google")
    caplog.set_level(logging.DEBUG, logger="google")
    google.addHandler(caplog.handler)
    try:
        async with open_gcp(secure.uri(secure.key(), ca_file=str(ca_file))) as kms:
            assert await round_trip(kms) == KEY
            assert (await kms.describe()).warnings == ()
    finally:
        google.removeHandler(caplog.handler)
    records = [str(vars(record)) for record in caplog.records]
    assert login.calls == 1
    assert not any("assertion" in record or "access-1" in record for record in records)


async def test_a_token_that_ran_out_is_renewed(secure: Any, ca_file: Path, login: Any) -> None:
    """A token that is about to end is not used; the next call brings a new one."""
    login.answer = {**login.answer, "expires_in": 1}
    async with open_gcp(secure.uri(secure.key(), ca_file=str(ca_file))) as kms:
        login.answer = {**login.answer, "access_token": "access-2", "expires_in": 3600}
        await kms.wrap(KEY, CONTEXT)
        await kms.wrap(KEY, CONTEXT)
    assert [call["authorization"] for call in secure.metadata][-2:] == ["Bearer access-2"] * 2
    assert login.calls == 2
