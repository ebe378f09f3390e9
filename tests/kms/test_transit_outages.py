"""Servers that are sealed, killed, not who they should be, or answer what no transit engine answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kms.errors import BadKey, Corrupt, Denied, Disabled, KmsError, Unavailable
from kms.port import Kms, Wrap
from kms.transit import open_transit
from kms.transit.server import ANSWER_BYTES_MAX

CONTEXT = {"keyring": "payments"}
KEY = bytes(range(32))
WRAP = Wrap(key_version="1", blob=b"vault:v1:QUJD")


@pytest.fixture(scope="module")
def own_bao(bao_servers: ModuleType) -> Iterator[Any]:
    """A server of this module's own, which keeps its data when it is killed."""
    with bao_servers.serving(durable=True) as server:
        yield server


@pytest.fixture(scope="module")
def tls_bao(bao_servers: ModuleType) -> Iterator[Any]:
    """A server with a certificate of a CA of its own."""
    with bao_servers.serving(tls=True) as server:
        yield server


async def _soon(call: Callable[[], Awaitable[bytes]]) -> bytes:
    """What `call` gives once the server and the login are back."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_a_sealed_server_is_an_outage(own_bao: Any, bao_servers: ModuleType, tmp_path: Path) -> None:
    """While it is sealed nothing opens, and the message says what to do; unsealed, it serves again."""
    key = bao_servers.TransitKey(bao=own_bao, folder=tmp_path)
    async with open_transit(key.approle_uri()) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        own_bao.seal()
        try:
            with pytest.raises(Unavailable, match="unseal it"):
                await kms.unwrap(wrap, CONTEXT)
        finally:
            own_bao.unseal()
        assert await _soon(lambda: kms.unwrap(wrap, CONTEXT)) == KEY


async def test_a_killed_server_is_an_outage_and_serves_after_its_restart(
    own_bao: Any, bao_servers: ModuleType, tmp_path: Path
) -> None:
    """The key that is open finds the server again by itself."""
    key = bao_servers.TransitKey(bao=own_bao, folder=tmp_path)
    async with open_transit(key.approle_uri()) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        own_bao.kill()
        try:
            with pytest.raises(Unavailable, match="no connection"):
                await kms.unwrap(wrap, CONTEXT)
        finally:
            own_bao.start()
        assert await _soon(lambda: kms.unwrap(wrap, CONTEXT)) == KEY


async def test_a_key_opens_while_its_server_is_away(own_bao: Any, bao_servers: ModuleType, tmp_path: Path) -> None:
    """A broker starts without this server, refuses nothing for it, logs in when it is back, and looks at the key."""
    key = bao_servers.TransitKey(bao=own_bao, folder=tmp_path)
    derived = bao_servers.TransitKey(bao=own_bao, folder=tmp_path, key="derived", derived=True)
    uri, wrong = key.approle_uri(), derived.uri()
    own_bao.kill()
    try:
        async with open_transit(uri) as kms, open_transit(wrong) as wrong_kms:
            for call in (kms.wrap(KEY, CONTEXT), kms.check(), kms.describe()):
                with pytest.raises(Unavailable):
                    await call
            own_bao.start()
            assert len((await _soon(lambda: _wrapped(kms))).split(b":")) == 3
            with pytest.raises(BadKey, match="derived"):
                await _soon(lambda: _wrapped(wrong_kms))
    finally:
        own_bao.kill()
        own_bao.start()


async def _wrapped(kms: Kms) -> bytes:
    return (await kms.wrap(KEY, CONTEXT)).blob


async def test_a_certificate_of_a_known_ca_is_believed(tls_bao: Any, bao_servers: ModuleType, tmp_path: Path) -> None:
    """With ca_file the key serves over TLS, and http is not warned of."""
    key = bao_servers.TransitKey(bao=tls_bao, folder=tmp_path)
    async with open_transit(key.approle_uri()) as kms:
        await kms.check()
        assert (await kms.describe()).warnings == ()


async def test_a_certificate_of_another_ca_is_no_answer(tls_bao: Any, bao_servers: ModuleType, tmp_path: Path) -> None:
    """Who cannot prove to be the server is not believed, not even a refusal; the remedy is named."""
    key = bao_servers.TransitKey(bao=tls_bao, folder=tmp_path)
    uri = key.uri().partition("&ca_file=")[0]
    assert "ca_file" not in uri
    async with open_transit(uri) as kms:
        with pytest.raises(Unavailable, match="ca_file") as caught:
            await kms.check()
    assert caught.value.kms_key == uri


async def test_a_certificate_for_another_host_is_no_answer(
    tls_bao: Any, bao_servers: ModuleType, tmp_path: Path
) -> None:
    """The name in the certificate counts as well as who signed it."""
    key = bao_servers.TransitKey(bao=tls_bao, folder=tmp_path)
    # Leads to the same listener, and is not among the certificate's names.
    uri = key.uri().replace("https://127.0.0.1:", "https://0.0.0.0:")
    async with open_transit(uri) as kms:
        with pytest.raises(Unavailable, match="certificate"):
            await kms.check()


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_ca_file_that_holds_none_is_a_bad_key(tmp_path: Path, content: str | None) -> None:
    """The file is named."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadKey, match=r"ca\.pem"):
        async with open_transit(f"transit:https://127.0.0.1:1/transit/tokens?ca_file={path}&token_file=/nowhere"):
            pass


async def test_a_server_without_tls_behind_https_is_no_answer(standin: Any, tmp_path: Path) -> None:
    """Whoever speaks something else than TLS there is told nothing, and not believed."""
    async with open_transit(standin.uri(tmp_path).replace("http:", "https:")) as kms:
        with pytest.raises(Unavailable, match="TLS"):
            await kms.check()
    assert standin.requests == []


async def test_a_hang_up_during_the_handshake_is_an_outage(standin: Any, tmp_path: Path) -> None:
    """A load balancer whose servers are away closes connections before TLS is agreed on."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        uri = standin.uri(tmp_path).replace(standin.url, f"https://127.0.0.1:{port}")
        async with open_transit(uri) as kms:
            with pytest.raises(Unavailable):
                await kms.wrap(KEY, CONTEXT)


async def test_a_server_that_does_not_speak_http_is_denied(standin: Any, tmp_path: Path) -> None:
    """What answers in another protocol is not the server."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        uri = standin.uri(tmp_path).replace(standin.url, f"http://127.0.0.1:{port}")
        with pytest.raises(Denied, match="HTTP"):
            async with open_transit(uri) as kms:
                await kms.wrap(KEY, CONTEXT)


async def test_a_server_that_never_answers_is_an_outage(
    standin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request has a deadline of its own."""
    monkeypatch.setattr("kms.transit.server.REQUEST_S", 0.2)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        uri = standin.uri(tmp_path).replace(standin.url, f"http://127.0.0.1:{port}")
        async with open_transit(uri) as kms:
            with pytest.raises(Unavailable, match=r"0\.2 s"):
                await kms.wrap(KEY, CONTEXT)


_HTML = b"<html>Bad Gateway</html>"


@pytest.mark.parametrize(
    ("status", "body", "expected", "match"),
    [
        (500, {"errors": ["internal error"]}, Unavailable, "500"),
        (502, _HTML, Unavailable, "502"),
        (503, {"errors": ["Vault is sealed"]}, Unavailable, "unseal"),
        (429, b"", Unavailable, "429"),
        (408, _HTML, Unavailable, "408"),
        (412, {"errors": ["required index state not present"]}, Unavailable, "412"),
        (472, b"", Unavailable, "472"),
        (473, b"", Unavailable, "473"),
        (307, b"", Unavailable, "active node"),
        (301, b"", Unavailable, "redirect"),
        (403, {"errors": ["permission denied"]}, Denied, "allow update"),
        (403, _HTML, Denied, "allow update"),
        (404, {"errors": []}, Disabled, "no such mount"),
        (404, _HTML, Denied, "404"),
        (400, {"errors": ["encryption key not found"]}, Disabled, "deleted"),
        (400, {"errors": ["refusing to use soft-deleted key"]}, Disabled, "soft-deleted"),
        (400, {"errors": ["ciphertext or signature version is disallowed by policy (too old)"]}, Disabled, "min_dec"),
        (400, {"errors": ["cipher: message authentication failed"]}, Corrupt, "another key"),
        (400, {"errors": ["invalid ciphertext: unable to decrypt"]}, Corrupt, "another key"),
        (400, {"errors": ["something new"]}, Denied, "something new"),
        (400, _HTML, Denied, "400"),
        (405, {"errors": ["unsupported operation"]}, Denied, "405"),
        (418, b"", Denied, "418"),
        (200, b"", Corrupt, "form"),
        (200, _HTML, Corrupt, "form"),
        (200, b"\xff\xfe", Corrupt, "form"),
        (200, [], Corrupt, "form"),
        (200, b'{"x":' + b"[" * 60_000, Corrupt, "form"),
        (400, b'{"x":' + b"[" * 60_000, Denied, "400"),
        (200, {"data": None}, Corrupt, "form"),
        (200, {"data": {"plaintext": 7}}, Corrupt, "form"),
        (200, {"data": {"plaintext": "QUJD"}}, Corrupt, "32 bytes"),
        (200, {"data": {"plaintext": "QUJD" * ANSWER_BYTES_MAX}}, Corrupt, "larger than"),
        (204, b"", Corrupt, "form"),
    ],
)
async def test_each_answer_has_its_meaning(
    standin: Any, tmp_path: Path, *, status: int, body: object, expected: type[KmsError], match: str
) -> None:
    """Whatever comes instead of a key is the one right error, names the KMS key, and hides the token."""
    standin.reply("transit/decrypt/tokens", status, body, Location="http://127.0.0.1:1/elsewhere")
    async with open_transit(standin.uri(tmp_path)) as kms:
        with pytest.raises(KmsError, match=match) as caught:
            await kms.unwrap(WRAP, CONTEXT)
    assert type(caught.value) is expected
    assert caught.value.kms_key == kms.uri
    assert "s.token-of-the-standin" not in str(caught.value)


@pytest.mark.parametrize("ciphertext", ["", "QUJD", "vault:v0:QUJD", "vault:v1:QUJ", "vault:v1:" + "QUJD" * 2000])
async def test_a_ciphertext_of_another_form_is_not_taken_for_a_wrap(
    standin: Any, tmp_path: Path, ciphertext: str
) -> None:
    """What could not be unwrapped later is refused while the key is still there."""
    standin.reply("transit/encrypt/tokens", 200, {"data": {"ciphertext": ciphertext}})
    async with open_transit(standin.uri(tmp_path)) as kms:
        with pytest.raises(Corrupt):
            await kms.wrap(KEY, CONTEXT)


async def test_an_answer_that_says_too_much_is_not_repeated(standin: Any, tmp_path: Path) -> None:
    """A server that puts the key or the token into its words has them left out of the message."""
    plain = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    for leaked in (f"cannot encrypt {plain}", "token s.token-of-the-standin is odd"):
        standin.reply("transit/encrypt/tokens", 400, {"errors": [leaked]})
        async with open_transit(standin.uri(tmp_path)) as kms:
            with pytest.raises(Denied) as caught:
                await kms.wrap(KEY, CONTEXT)
        assert plain not in str(caught.value)
        assert "s.token-of-the-standin" not in str(caught.value)


async def test_words_of_a_server_stay_on_one_short_line(standin: Any, tmp_path: Path) -> None:
    """Logs are not filled, nor forged, by what a server says."""
    standin.reply("transit/encrypt/tokens", 400, {"errors": ["line one\nline two\u001b[2J " + "x" * 5000]})
    async with open_transit(standin.uri(tmp_path)) as kms:
        with pytest.raises(Denied) as caught:
            await kms.wrap(KEY, CONTEXT)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


async def test_a_compressed_answer_is_not_unpacked(standin: Any, tmp_path: Path) -> None:
    """A small answer cannot become a large one."""
    standin.reply("transit/decrypt/tokens", 200, b"\x1f\x8b" + bytes(100), **{"Content-Encoding": "gzip"})
    async with open_transit(standin.uri(tmp_path)) as kms:
        with pytest.raises(Corrupt, match="form"):
            await kms.unwrap(WRAP, CONTEXT)


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"])
async def test_proxies_of_the_environment_are_not_used(
    standin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A proxy that somebody set for something else sees no token."""
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    standin.reply("transit/encrypt/tokens", 200, {"data": {"ciphertext": "vault:v1:QUJD"}})
    async with open_transit(standin.uri(tmp_path)) as kms:
        await kms.wrap(KEY, CONTEXT)


async def test_cookies_are_not_kept(standin: Any, tmp_path: Path) -> None:
    """What a balancer sets is not sent back."""
    answer = {"data": {"ciphertext": "vault:v1:QUJD"}}
    standin.reply("transit/encrypt/tokens", 200, answer, **{"Set-Cookie": "route=one"})
    async with open_transit(standin.uri(tmp_path)) as kms:
        await kms.wrap(KEY, CONTEXT)
        await kms.wrap(KEY, CONTEXT)
    assert not any("Cookie" in headers for _, _, headers in standin.requests)


async def test_a_garbled_login_is_denied(standin: Any, tmp_path: Path, transit_key: Any) -> None:
    """Garbage instead of a token says nothing of a blob, so it is not Corrupt."""
    for garbled in (_HTML, json.dumps({"auth": {}}).encode(), json.dumps({"auth": None}).encode()):
        standin.reply("auth/approle/login", 200, garbled)
        secret_id = transit_key.file("secret-id", "an-id")
        uri = standin.uri(tmp_path).partition("?")[0] + f"?role_id=r&secret_id_file={secret_id}"
        async with open_transit(uri) as kms:
            with pytest.raises(Denied, match="form"):
                await kms.check()
