"""What answers and silences of a vault and of its sign-in mean, as one of the classes that the broker acts upon."""

from __future__ import annotations

import gzip
import logging
import shutil
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kms.azure import adapter, open_azure
from kms.azure.connection import ANSWER_BYTES_MAX
from kms.conformance import CONTEXT, KEY
from kms.errors import BadKey, Corrupt, Denied, Disabled, KmsError, Unavailable
from kms.port import Kms, Wrap


@pytest.fixture
async def opened(azure_vault: Any) -> AsyncIterator[tuple[Kms, Wrap]]:
    """A key of the vault, open, and what it wrapped."""
    azure_vault.add("broker", 1)
    async with open_azure(azure_vault.uri("broker")) as kms:
        yield kms, await kms.wrap(KEY, CONTEXT)


def _error(code: str, inner: str = "") -> bytes:
    return b'{"error":{"code":"%s","innererror":{"code":"%s"}}}' % (code.encode(), inner.encode())


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, _error("Throttled"), Unavailable),
        (408, b"", Unavailable),
        (500, _error("InternalServerError"), Unavailable),
        (502, b"<html>bad gateway</html>", Unavailable),
        (503, b"x" * 100_000, Unavailable),
        (504, b"\xff\xfe", Unavailable),
        (400, _error("BadParameter"), Corrupt),
        (403, _error("Forbidden", "ForbiddenByRbac"), Denied),
        (403, _error("Forbidden", "ForbiddenByFirewall"), Denied),
        (403, _error("Forbidden", "KeyDisabled"), Disabled),
        (404, _error("KeyNotFound"), Disabled),
        (409, _error("Conflict", "ObjectIsDeletedButRecoverable"), Disabled),
        (418, b"", Denied),
        (204, b"", Denied),
        (200, b"", Corrupt),
        (200, b"<html>hello</html>", Corrupt),
        (200, b"[]", Corrupt),
        (200, b'{"kid":"https://elsewhere/keys/other/1","value":"AAAA"}', Corrupt),
        (200, b'{"kid":1,"value":"AAAA"}', Corrupt),
    ],
)
async def test_an_answer_means_one_thing(  # noqa: PLR0917 (three fixtures, and one row of the table)
    azure_vault: Any, azure_standin: Any, opened: tuple[Kms, Wrap], status: int, body: bytes, expected: type[KmsError]
) -> None:
    """Each answer to an unwrap is exactly one class, names the key, and serves nothing."""
    kms, wrap = opened
    azure_vault.fault, azure_vault.fault_at = azure_standin.always(status, body), "/unwrapkey"
    with pytest.raises(expected) as caught:
        await kms.unwrap(wrap, CONTEXT)
    assert type(caught.value) is expected
    assert caught.value.kms_key == kms.uri


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        (b"/keys/broker/", b"/keys/other/", "another key"),
        (b'0001"', b'0002"', "another version"),
        (b'"value": "', b'"value": "!', "not base64url"),
        (b'"value": "', b'"value": "AAAA', "was not wrapped by tokenbroker"),
        (b'"value"', b'"valve"', "not what its API reference says"),
    ],
)
async def test_a_right_answer_that_was_changed_is_corrupt(
    azure_vault: Any, opened: tuple[Kms, Wrap], was: bytes, becomes: bytes, says: str
) -> None:
    """An answer about another key or version, or whose value is no bound key, is Corrupt."""
    kms, wrap = opened
    azure_vault.change = lambda body: (body.replace(was, becomes, 1), {})
    with pytest.raises(Corrupt, match=says):
        await kms.unwrap(wrap, CONTEXT)


async def test_an_answer_over_its_bound_is_corrupt(azure_vault: Any, opened: tuple[Kms, Wrap]) -> None:
    """A right answer that goes on for more than 64 KiB is not read to its end."""
    kms, wrap = opened
    azure_vault.change = lambda body: (body + b" " * ANSWER_BYTES_MAX, {})
    with pytest.raises(Corrupt, match="more than 65536 bytes"):
        await kms.unwrap(wrap, CONTEXT)


async def test_a_compressed_answer_is_corrupt(azure_vault: Any, opened: tuple[Kms, Wrap]) -> None:
    """A right answer that could unfold to any size is not unfolded."""
    kms, wrap = opened
    azure_vault.change = lambda body: (gzip.compress(body), {"Content-Encoding": "gzip"})
    with pytest.raises(Corrupt, match="compressed"):
        await kms.unwrap(wrap, CONTEXT)


async def test_a_redirect_is_denied_and_not_followed(
    azure_vault: Any, azure_standin: Any, opened: tuple[Kms, Wrap]
) -> None:
    """A redirect, even to the vault itself, is refused: the access token goes nowhere else."""
    kms, wrap = opened
    azure_vault.asked.clear()
    fault = azure_standin.always(307, b"", Location=f"{azure_vault.url}/keys/broker")
    azure_vault.fault, azure_vault.fault_at = fault, "/unwrapkey"
    with pytest.raises(Denied, match="redirects nobody"):
        await kms.unwrap(wrap, CONTEXT)
    assert azure_vault.asked == []


async def test_a_wrap_that_the_vault_finds_wrong_is_a_bad_key(
    azure_vault: Any, azure_standin: Any, opened: tuple[Kms, Wrap]
) -> None:
    """A 400 to a wrap is about the key: nothing that was wrapped is at fault."""
    kms, _ = opened
    azure_vault.fault, azure_vault.fault_at = azure_standin.always(400, _error("BadParameter")), "/wrapkey"
    with pytest.raises(BadKey, match="permitted operations"):
        await kms.wrap(KEY, CONTEXT)


async def test_silence_is_unavailable_in_time(
    azure_vault: Any, azure_standin: Any, opened: tuple[Kms, Wrap], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vault that does not answer is Unavailable after the call's own deadline."""
    kms, wrap = opened
    monkeypatch.setattr(adapter, "CALL_S", 0.05)
    azure_vault.fault = azure_standin.silence
    with pytest.raises(Unavailable, match=r"within 0\.05 s"):
        await kms.unwrap(wrap, CONTEXT)


async def test_a_connection_that_breaks_is_tried_once_more(
    azure_vault: Any, azure_standin: Any, opened: tuple[Kms, Wrap]
) -> None:
    """One broken connection costs nothing; a second one in a row is Unavailable."""
    kms, wrap = opened
    broken = 0

    async def fault(request: Any) -> Any:
        nonlocal broken
        broken += 1
        if broken == 1:
            return await azure_standin.hang_up(request)
        azure_vault.fault = None
        return await azure_vault.answer(request)

    azure_vault.fault = fault
    assert await kms.unwrap(wrap, CONTEXT) == KEY
    azure_vault.fault = azure_standin.hang_up
    with pytest.raises(Unavailable):
        await kms.unwrap(wrap, CONTEXT)
    assert broken == 2


async def test_throttling_is_not_retried_here(azure_vault: Any, azure_standin: Any, opened: tuple[Kms, Wrap]) -> None:
    """A throttled call is asked once, whatever Retry-After says: pacing is the broker's."""
    kms, wrap = opened
    asked = 0

    async def fault(request: Any) -> Any:
        nonlocal asked
        asked += 1
        return await azure_standin.always(429, b"", **{"Retry-After": "3600"})(request)

    azure_vault.fault = fault
    with pytest.raises(Unavailable, match="429"):
        await kms.unwrap(wrap, CONTEXT)
    assert asked == 1


@pytest.mark.parametrize(
    ("status", "expected"), [(503, Unavailable), (403, Denied), (404, Disabled), (307, Denied), (200, Corrupt)]
)
async def test_a_vault_that_is_ill_at_the_start_serves_later(
    azure_vault: Any, azure_standin: Any, status: int, expected: type[KmsError]
) -> None:
    """A key that does not answer, or refuses, opens all the same: another may serve, and this one when it is well."""
    azure_vault.add("broker", 1)
    azure_vault.fault = azure_standin.always(status)
    async with open_azure(azure_vault.uri("broker")) as kms:
        with pytest.raises(expected):
            await kms.check()
        azure_vault.fault = None
        await kms.check()


async def test_a_vault_that_is_not_there_is_unavailable(azure_standin: Any, azure_vault: Any) -> None:
    """Nobody listening is an outage."""
    uri = azure_vault.uri("broker").replace(azure_vault.url, "https://127.0.0.1:1")
    with pytest.raises(Unavailable) as caught:
        async with open_azure(uri) as kms:
            await kms.check()
    assert caught.value.kms_key == uri


async def test_an_untrusted_certificate_is_no_answer(azure_vault: Any, azure_standin: Any, tmp_path: Path) -> None:
    """Who cannot prove to be the vault is not believed, not even a refusal; the remedy is named."""
    azure_vault.add("broker", 1)
    folder = tmp_path / "other"
    folder.mkdir()
    other, _ = azure_standin.self_signed(folder)
    shutil.copy(other, azure_vault.certificate)
    with pytest.raises(Unavailable, match="ca-file"):
        async with open_azure(azure_vault.uri("broker")) as kms:
            await kms.check()
    assert azure_vault.asked == []
    assert azure_vault.resources == []


async def test_messages_and_logs_hold_no_secret(
    azure_vault: Any, azure_standin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With every log line of the SDK on, neither key, blob nor access token is in one, nor in an error."""
    caplog.set_level(logging.DEBUG)
    azure_vault.add("broker", 1)
    async with open_azure(azure_vault.uri("broker")) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        await kms.unwrap(wrap, CONTEXT)
        body = b'{"kid": 1, "value": "' + urlsafe_b64encode(KEY) + b'"'
        azure_vault.fault, azure_vault.fault_at = azure_standin.always(200, body), "/unwrapkey"
        with pytest.raises(Corrupt) as caught:
            await kms.unwrap(wrap, CONTEXT)
    assert caplog.records
    said = f"{caplog.text} {caught.getrepr(chain=True)}"
    assert caught.value.__cause__ is None
    for secret in (KEY, wrap.blob):
        for spelt in (secret.hex(), b64encode(secret).decode(), urlsafe_b64encode(secret).decode().rstrip("=")):
            assert spelt not in said
    assert azure_standin.ACCESS_TOKEN not in said
    assert azure_standin.IDENTITY_HEADER not in said
