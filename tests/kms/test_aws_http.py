"""What may stand at the other end of the line: servers that lie, flood, send elsewhere, or say nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kms.aws import open_aws
from kms.errors import Corrupt, Denied, KmsError, Unavailable
from kms.port import Caller, Kms, Wrap

KEY = bytes(range(32))
CONTEXT = {"app": "tokenbroker", "keyring": "tests"}


@pytest.fixture
async def kms(aws: Any) -> AsyncIterator[Kms]:
    """The stand-in's key, open."""
    async with open_aws(aws.uri(aws.key)) as opened:
        yield opened


def _decrypted(aws: Any, **changed: object) -> bytes:
    plain = {"KeyId": aws.key.arn("eu-west-1"), "Plaintext": base64.b64encode(KEY).decode()}
    return json.dumps({**plain, **changed}).encode()


async def _refusal(kms: Kms, wrap: Wrap) -> KmsError:
    with pytest.raises(KmsError) as refused:
        await kms.unwrap(wrap, CONTEXT)
    assert refused.value.kms_key == kms.uri
    assert base64.b64encode(wrap.blob).decode() not in str(refused.value)
    return refused.value


async def test_an_honest_answer_is_taken(aws: Any, aws_standin: Any, kms: Kms) -> None:
    """The answers below differ from this one, which opens, in one thing each."""
    wrap = await kms.wrap(KEY, CONTEXT)
    aws.always(aws_standin.says(_decrypted(aws)))
    assert await kms.unwrap(wrap, CONTEXT) == KEY


@pytest.mark.parametrize(
    "changed",
    [
        {"Plaintext": base64.b64encode(KEY[:16]).decode()},
        {"Plaintext": base64.b64encode(KEY * 2).decode()},
        {"Plaintext": ""},
        {"Plaintext": None},
        {"KeyId": None},
        {"KeyId": "arn:aws:kms:eu-west-1:111122223333:key/00000000-0000-0000-0000-000000000000"},
    ],
    ids=str,
)
async def test_an_answer_with_a_wrong_field_is_corrupt(
    aws: Any, aws_standin: Any, kms: Kms, changed: dict[str, object]
) -> None:
    """A key of another size, none at all, or an answer for another key is Corrupt."""
    wrap = await kms.wrap(KEY, CONTEXT)
    aws.always(aws_standin.says(_decrypted(aws, **changed)))
    assert type(await _refusal(kms, wrap)) is Corrupt


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>sign in to the hotel</html>", b"{", b"[]", b"null", b"\xff\xfe", b'"x"', b'{"Plaintext": [1]}'],
    ids=str,
)
async def test_garbage_is_never_an_outage(aws: Any, aws_standin: Any, kms: Kms, body: bytes) -> None:
    """An answer that is no answer of KMS is Denied or Corrupt: cached keys must not serve on because of it."""
    wrap = await kms.wrap(KEY, CONTEXT)
    aws.always(aws_standin.says(body))
    refusal = await _refusal(kms, wrap)
    assert type(refusal) in (Denied, Corrupt)
    assert "hotel" not in str(refusal)


@pytest.mark.parametrize("size", [0, 4097])
async def test_a_wrap_of_a_wrong_size_is_corrupt(aws: Any, aws_standin: Any, kms: Kms, size: int) -> None:
    """An empty blob, or one that no row can hold, is refused when it is made."""
    blob = base64.b64encode(bytes(size)).decode()
    aws.always(aws_standin.says(json.dumps({"KeyId": aws.key.arn("eu-west-1"), "CiphertextBlob": blob}).encode()))
    with pytest.raises(Corrupt):
        await kms.wrap(KEY, CONTEXT)


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:kms:eu-west-1:111122223333:key/00000000-0000-0000-0000-000000000000",
        "arn:aws:kms:us-east-1:111122223333:key/{id}",
        "{id}",
    ],
)
async def test_another_key_at_the_start_is_refused(aws: Any, arn: str) -> None:
    """A server that describes another key than the one in the URI is not trusted with anything."""
    aws.key.metadata["Arn"] = arn.format(id=aws.key.key_id)
    with pytest.raises(Corrupt, match="another key than it was asked for"):
        async with open_aws(aws.uri(aws.key)):
            pass


async def test_nothing_of_a_key_is_logged(aws: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Even where everything is logged, no key and no wrap of it is."""
    caplog.set_level(logging.DEBUG)
    async with open_aws(aws.uri(aws.key)) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        await kms.unwrap(wrap, CONTEXT)
    logging.getLogger("somebody").debug("everything is logged")
    assert "everything is logged" in caplog.text
    for secret in (KEY, wrap.blob):
        assert base64.b64encode(secret).decode() not in caplog.text
        assert repr(secret)[2:-1] not in caplog.text


async def test_an_endless_answer_is_refused(aws: Any, aws_standin: Any, kms: Kms) -> None:
    """Reading stops at the bound, and the key is usable afterwards."""
    wrap = await kms.wrap(KEY, CONTEXT)
    aws.always(aws_standin.floods)
    refusal = await _refusal(kms, wrap)
    assert type(refusal) is Corrupt
    assert "more than 65536 bytes" in str(refusal)
    aws.always(None)
    assert await kms.unwrap(wrap, CONTEXT) == KEY


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(aws: Any, aws_standin: Any, kms: Kms, status: int) -> None:
    """A redirect is Denied, and the host that it names is never asked."""
    async with aws_standin.standing() as elsewhere:
        aws.always(aws_standin.says(b"{}", status=status, Location=elsewhere.url))
        with pytest.raises(Denied, match=rf"redirect \(HTTP {status}\)"):
            await kms.wrap(KEY, CONTEXT)
        assert elsewhere.calls == []


async def test_a_cut_connection_is_tried_again_once(aws: Any, aws_standin: Any, kms: Kms) -> None:
    """One hang-up goes unnoticed; a server that always hangs up is Unavailable, after two attempts."""
    aws.next(aws_standin.hangs_up)
    wrap = await kms.wrap(KEY, CONTEXT)
    aws.always(aws_standin.hangs_up)
    before = len(aws.calls)
    assert type(await _refusal(kms, wrap)) is Unavailable
    assert len(aws.calls) == before + 2


async def test_a_silent_server_is_unavailable(aws: Any, aws_standin: Any, kms: Kms) -> None:
    """Without any deadline of the caller's, silence ends by the attempts' own."""
    aws.always(aws_standin.waits)
    with pytest.raises(Unavailable, match="no answer"):
        await kms.generate(CONTEXT)
    aws.always(None)
    await kms.check()


async def test_a_call_that_is_given_up_harms_no_other(aws: Any, aws_standin: Any, kms: Kms) -> None:
    """A caller that leaves in the middle of an attempt leaves the client usable."""
    aws.next(aws_standin.waits)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await kms.generate(CONTEXT)
    await kms.check()


async def test_an_opening_that_is_given_up_leaves_nothing(aws: Any, aws_standin: Any) -> None:
    """A key whose opening is cancelled closes what it had opened, and opens the next time."""
    aws.next(aws_standin.waits)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5), open_aws(aws.uri(aws.key)):
            pass
    async with open_aws(aws.uri(aws.key)) as kms:
        await kms.check()


async def test_nobody_there_is_unavailable(aws: Any) -> None:
    """Opening a key where nothing listens is Unavailable."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(Unavailable, match="check the network"):
            async with open_aws(f"aws-kms:{aws.key.arn('eu-west-1')}?endpoint=http://127.0.0.1:{port}"):
                pass


async def test_an_unknown_certificate_is_refused(
    aws_standin: Any, aws_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server with a certificate of an unknown CA is asked nothing; naming the CA mends it."""
    tls, authority = aws_standin.certificate(tmp_path)
    async with aws_standin.standing(tls) as standin:
        uri = standin.uri(standin.key)
        with pytest.raises(Unavailable, match="AWS_CA_BUNDLE"):
            async with open_aws(uri):
                pass
        assert standin.calls == []
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
        async with open_aws(uri) as kms:
            await kms.check()
            assert (await kms.describe()).warnings == ()


async def test_keys_in_the_clear_pass_no_proxy(aws: Any, aws_standin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked without TLS stays on this machine, whatever proxy the environment names."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with aws_standin.standing() as elsewhere:
        monkeypatch.setenv("HTTP_PROXY", elsewhere.url)
        monkeypatch.setenv("http_proxy", elsewhere.url)
        aws.key.workers.add("ci-1")
        async with open_aws(aws.uri(aws.key, role=True)) as kms:
            wrap = await kms.wrap(KEY, CONTEXT)
            assert await kms.unwrap(wrap, CONTEXT, Caller(worker="ci-1", groups=())) == KEY
        assert elsewhere.calls == []
    assert {"Encrypt", "AssumeRole", "Decrypt"} <= set(aws.operations())


async def test_what_speaks_no_http_is_no_outage(aws: Any) -> None:
    """Whoever answers with something else than HTTP is Denied: cached keys must not serve on because of it."""

    async def chat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(chat, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Denied, match="could not read its answer"):
            async with open_aws(f"aws-kms:{aws.key.arn('eu-west-1')}?endpoint=http://127.0.0.1:{port}"):
                pass


async def test_the_environment_names_no_endpoint(aws: Any, aws_standin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a key is asked for is said by its URI; AWS_ENDPOINT_URL is not obeyed."""
    async with aws_standin.standing() as elsewhere:
        monkeypatch.setenv("AWS_ENDPOINT_URL", elsewhere.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", elsewhere.url)
        async with open_aws(aws.uri(aws.key)) as kms:
            await kms.check()
        assert elsewhere.calls == []


async def test_without_credentials_nothing_opens(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials are Denied, with what to do, before anything is asked."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Denied, match="found no credentials; give the broker a role"):
        async with open_aws(aws.uri(aws.key)):
            pass
    assert aws.calls == []


async def test_a_credential_source_that_is_silent_is_unavailable(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's credential endpoint where nothing listens is an outage, and no refusal."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{probe.getsockname()[1]}/c")
        with pytest.raises(Unavailable, match="source of its credentials"):
            async with open_aws(aws.uri(aws.key)):
                pass
