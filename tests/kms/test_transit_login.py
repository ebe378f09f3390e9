"""How the transit adapter logs in, stays logged in, and logs out; against a real OpenBao server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kms.errors import BadKey, Denied, Unavailable
from kms.port import Wrap
from kms.transit import open_transit
from kms.transit.login import TOKEN_VARIABLE

CONTEXT = {"keyring": "payments"}
KEY = bytes(range(32))


async def _eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            if holds():
                return
            await asyncio.sleep(0.05)


def _made(bao: Any, before: set[str]) -> list[dict[str, Any]]:
    """What the server knows of the tokens that were made since."""
    accessors = bao.accessors() - before
    return [bao.ask("POST", "auth/token/lookup-accessor", {"accessor": each})["data"] for each in accessors]


async def test_a_token_of_the_environment_serves(transit_key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an option that logs in, the variable is used."""
    monkeypatch.setenv(TOKEN_VARIABLE, transit_key.bao.token(transit_key.mount))
    async with open_transit(transit_key.uri().partition("?")[0]) as kms:
        await kms.check()


async def test_without_any_token_the_key_does_not_open(transit_key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which ways there are."""
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(BadKey, match="token_file, or role_id"):
        async with open_transit(transit_key.uri().partition("?")[0]):
            pass


async def test_a_bad_token_of_the_environment_is_not_shown(transit_key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that holds no token is refused without its content."""
    monkeypatch.setenv(TOKEN_VARIABLE, "s.secret and more")
    with pytest.raises(BadKey, match=TOKEN_VARIABLE) as caught:
        async with open_transit(transit_key.uri().partition("?")[0]):
            pass
    assert "s.secret" not in str(caught.value)


async def test_an_approle_logs_in_and_its_token_is_revoked_at_the_end(transit_key: Any) -> None:
    """One login serves many calls, and leaves no token behind."""
    bao = transit_key.bao
    uri = transit_key.approle_uri()
    before = bao.accessors()
    async with open_transit(uri) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        assert await kms.unwrap(wrap, CONTEXT) == KEY
        assert len(bao.accessors() - before) == 1
    assert bao.accessors() == before


async def test_a_wrong_secret_id_is_denied_and_not_shown(transit_key: Any) -> None:
    """The message names the remedy and no secret."""
    uri = transit_key.approle_uri()
    transit_key.file("secret-id", "wrong-secret-id")
    async with open_transit(uri) as kms:
        with pytest.raises(Denied, match="secret_id_file") as caught:
            await kms.check()
    assert caught.value.kms_key == uri
    assert "wrong-secret-id" not in str(caught.value)


async def test_a_wrong_approle_mount_is_denied(transit_key: Any) -> None:
    """A login that leads nowhere is no outage."""
    secret_id = transit_key.file("secret-id", "a-secret-id")
    uri = transit_key.uri(role_id="r", secret_id_file=secret_id, approle_mount="nowhere")
    async with open_transit(uri) as kms:
        with pytest.raises(Denied, match="approle_mount"):
            await kms.check()


async def test_a_wrong_secret_id_locks_nobody_out_and_the_right_one_serves_at_once(transit_key: Any) -> None:
    """Servers lock an AppRole, for all who use it, after five refusals; a file that was mended is not waited for."""
    uri = transit_key.approle_uri()
    right = Path(uri.partition("secret_id_file=")[2].partition("&")[0]).read_text().strip()
    transit_key.file("secret-id", "wrong")
    async with open_transit(uri) as kms:
        for _ in range(10):
            with pytest.raises(Denied, match="secret_id_file"):
                await kms.check()
        transit_key.file("secret-id", right)
        await kms.check()


@pytest.mark.parametrize("option", ["token_file", "secret_id_file"])
async def test_a_file_that_others_can_read_is_a_bad_key(transit_key: Any, tmp_path: Path, option: str) -> None:
    """A token or secret id that is open to others is refused, with the command that closes it."""
    path = tmp_path / "open"
    path.write_text("s.secret")
    path.chmod(0o644)
    uri = (
        transit_key.uri(token_file=path)
        if option == "token_file"
        else transit_key.uri(role_id="r", secret_id_file=path)
    )
    with pytest.raises(BadKey, match="chmod 600"):
        async with open_transit(uri):
            pass


@pytest.mark.parametrize("content", [None, "", "two words", "x" * 9000])
async def test_a_file_without_a_token_is_a_bad_key(transit_key: Any, tmp_path: Path, content: str | None) -> None:
    """A missing, empty or odd file is named."""
    path = tmp_path / "odd" if content is None else transit_key.file("odd", content)
    with pytest.raises(BadKey, match="odd"):
        async with open_transit(transit_key.uri(token_file=path)):
            pass


async def test_a_token_file_is_read_again_when_it_changed(transit_key: Any) -> None:
    """A new token in the file serves the next call, though the old one was revoked."""
    bao = transit_key.bao
    first = bao.token(transit_key.mount)
    async with open_transit(transit_key.uri(token_file=transit_key.file("token", first))) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        transit_key.file("token", bao.token(transit_key.mount))
        bao.revoke(first)
        assert await kms.unwrap(wrap, CONTEXT) == KEY


async def test_a_token_file_that_is_empty_for_a_moment_is_read_again(transit_key: Any) -> None:
    """A writer that empties the file before it fills it costs a second, not the pause after a refused login."""
    path = transit_key.file("token", transit_key.bao.token(transit_key.mount))
    async with open_transit(transit_key.uri(token_file=path)) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        path.write_text("")
        with pytest.raises(BadKey, match="holds no token"):
            await kms.unwrap(wrap, CONTEXT)
        path.write_text(transit_key.bao.token(transit_key.mount))
        await _eventually_opens(kms, wrap)


async def test_a_token_file_that_is_gone_is_an_outage(transit_key: Any) -> None:
    """As with the local KMS: cached keys serve on; a new file ends it."""
    path = transit_key.file("token", transit_key.bao.token(transit_key.mount))
    async with open_transit(transit_key.uri(token_file=path)) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        path.unlink()
        with pytest.raises(Unavailable, match="token"):
            await kms.unwrap(wrap, CONTEXT)
        transit_key.file("token", transit_key.bao.token(transit_key.mount))
        await _eventually_opens(kms, wrap)


async def _eventually_opens(kms: Any, wrap: Wrap) -> None:
    """A failed login stands for a second."""
    async with asyncio.timeout(20):
        while True:
            try:
                assert await kms.unwrap(wrap, CONTEXT) == KEY
            except (BadKey, Unavailable):
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_revoked_token_without_a_successor_is_denied(transit_key: Any) -> None:
    """There is no other token, so the call is refused; it is no outage."""
    token = transit_key.bao.token(transit_key.mount)
    async with open_transit(transit_key.uri(token_file=transit_key.file("token", token))) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        transit_key.bao.revoke(token)
        with pytest.raises(Denied, match="has ended") as caught:
            await kms.unwrap(wrap, CONTEXT)
    assert token not in f"{caught.value!s} {caught.value!r}"


async def test_calls_share_one_login_after_a_revocation(transit_key: Any) -> None:
    """However many calls find the token stale, one login follows, and each call is answered."""
    bao = transit_key.bao
    uri = transit_key.approle_uri()
    before = bao.accessors()
    async with open_transit(uri) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        (accessor,) = bao.accessors() - before
        bao.ask("POST", "auth/token/revoke-accessor", {"accessor": accessor})
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(kms.unwrap(wrap, CONTEXT)) for _ in range(16)]
        assert [call.result() for call in calls] == [KEY] * 16
        assert len(bao.accessors() - before) == 1


async def test_a_login_outlives_the_call_that_asked_for_it(transit_key: Any, standin: Any, tmp_path: Path) -> None:
    """A call that is cancelled while it waits for a login takes it away neither from others nor from later ones."""
    auth = {"client_token": "s.one", "lease_duration": 60, "policies": ["default"]}
    standin.reply("auth/approle/login", 200, {"auth": auth})
    standin.reply("auth/token/lookup-self", 200, {"data": {"ttl": 60}})
    secret_id = transit_key.file("secret-id", "an-id")
    async with open_transit(standin.uri(tmp_path).partition("?")[0] + f"?role_id=r&secret_id_file={secret_id}") as kms:
        standin.reply("auth/token/lookup-self", 403)
        asked, release = standin.hold("auth/approle/login")
        standin.reply("auth/approle/login", 200, {"auth": {**auth, "client_token": "s.two"}})
        async with asyncio.TaskGroup() as tasks:
            first, second = (tasks.create_task(kms.wrap(KEY, CONTEXT)) for _ in range(2))
            await asked.wait()
            first.cancel()
            await asyncio.wait([first])
            standin.reply("transit/encrypt/tokens", 200, {"data": {"ciphertext": "vault:v1:QUJD"}})
            release.set()
        assert first.cancelled()
        assert second.result().blob == b"vault:v1:QUJD"
    assert [path for _, path, _ in standin.requests].count("/v1/auth/approle/login") == 2


async def test_a_call_that_learns_late_of_its_stale_token_takes_the_login_of_another(
    transit_key: Any, standin: Any, tmp_path: Path
) -> None:
    """While a call asks about its token, another one has logged in: that login serves both."""
    auth = {"client_token": "s.one", "lease_duration": 60, "policies": ["default"]}
    standin.reply("auth/approle/login", 200, {"auth": auth})
    standin.reply("auth/token/lookup-self", 200, {"data": {"ttl": 60}})
    secret_id = transit_key.file("secret-id", "an-id")
    async with open_transit(standin.uri(tmp_path).partition("?")[0] + f"?role_id=r&secret_id_file={secret_id}") as kms:
        standin.reply("auth/token/lookup-self", 403)
        standin.reply("auth/approle/login", 200, {"auth": {**auth, "client_token": "s.two"}})
        asked, release = standin.hold("auth/token/lookup-self")
        async with asyncio.TaskGroup() as tasks:
            late = tasks.create_task(kms.wrap(KEY, CONTEXT))
            await asked.wait()
            standin.hold_no_more("auth/token/lookup-self")
            with pytest.raises(Denied):
                await kms.wrap(KEY, CONTEXT)
            standin.reply("transit/encrypt/tokens", 200, {"data": {"ciphertext": "vault:v1:QUJD"}})
            release.set()
        assert late.result().blob == b"vault:v1:QUJD"
    assert [path for _, path, _ in standin.requests].count("/v1/auth/approle/login") == 2


async def test_a_refusal_by_policy_makes_no_login(transit_key: Any) -> None:
    """A token that lives and may not is Denied at once, naming the path to allow."""
    bao = transit_key.bao
    uri = transit_key.approle_uri()
    before = bao.accessors()
    async with open_transit(uri) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        bao.policy(transit_key.mount, {f"{transit_key.mount}/encrypt/tokens": ["update"]})
        made = bao.accessors() - before
        with pytest.raises(Denied, match=f"allow update on {transit_key.mount}/decrypt/tokens"):
            await kms.unwrap(wrap, CONTEXT)
        assert bao.accessors() - before == made
        await kms.wrap(KEY, CONTEXT)


async def test_a_token_without_the_default_policy_is_believed_for_a_while(transit_key: Any) -> None:
    """A token that cannot be looked up is not replaced at every refusal, which would be a login for each."""
    bao = transit_key.bao
    uri = transit_key.approle_uri(default=False)
    before = bao.accessors()
    async with open_transit(uri) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        bao.policy(transit_key.mount, {})
        made = bao.accessors() - before
        for _ in range(3):
            with pytest.raises(Denied):
                await kms.unwrap(wrap, CONTEXT)
        assert bao.accessors() - before == made


async def test_a_token_is_renewed_ahead_of_its_end(transit_key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody calls, and the token is renewed all the same, before it ends."""
    monkeypatch.setattr("kms.transit.session.RENEW_AFTER", 0.01)
    bao = transit_key.bao
    uri = transit_key.approle_uri(token_ttl="30s", token_max_ttl="1h")
    before = bao.accessors()
    async with open_transit(uri) as kms:
        (made,) = _made(bao, before)
        wrap = await kms.wrap(KEY, CONTEXT)
        await _eventually(lambda: any(each.get("last_renewal") for each in _made(bao, before)))
        (renewed,) = _made(bao, before)
        assert renewed["accessor"] == made["accessor"]
        assert renewed["expire_time"] > made["expire_time"]
        assert await kms.unwrap(wrap, CONTEXT) == KEY


async def test_a_login_is_repeated_when_its_token_can_be_renewed_no_more(transit_key: Any) -> None:
    """At the longest time that a token may live, another one takes over before it ends."""
    bao = transit_key.bao
    uri = transit_key.approle_uri(token_ttl="3s", token_max_ttl="3s")
    before = bao.accessors()
    async with open_transit(uri) as kms:
        (first,) = bao.accessors() - before
        wrap = await kms.wrap(KEY, CONTEXT)
        await _eventually(lambda: bool(bao.accessors() - before - {first}))
        assert await kms.unwrap(wrap, CONTEXT) == KEY


async def test_a_renewal_that_is_cut_short_is_followed_by_a_login(
    transit_key: Any, standin: Any, tmp_path: Path
) -> None:
    """The login comes while the token has time left, and not after renewals that each give less."""
    auth = {"client_token": "s.x", "lease_duration": 2, "renewable": True, "policies": ["default"]}
    standin.reply("auth/approle/login", 200, {"auth": auth})
    standin.reply("auth/token/lookup-self", 200, {"data": {"ttl": 60}})
    standin.reply("auth/token/renew-self", 200, {"auth": {**auth, "lease_duration": 1}})
    secret_id = transit_key.file("secret-id", "an-id")
    async with open_transit(standin.uri(tmp_path).partition("?")[0] + f"?role_id=r&secret_id_file={secret_id}"):
        asked, release = standin.hold("auth/approle/login")
        await asked.wait()
        release.set()
    assert [path for _, path, _ in standin.requests].count("/v1/auth/token/renew-self") == 1


async def test_a_renewable_token_of_a_file_is_renewed(transit_key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that was handed over stays alive, and is not revoked at the end: it is not ours."""
    monkeypatch.setattr("kms.transit.session.RENEW_AFTER", 0.01)
    bao = transit_key.bao
    token = bao.token(transit_key.mount, period="30s")
    async with open_transit(transit_key.uri(token_file=transit_key.file("token", token))):
        lookup = "auth/token/lookup"
        await _eventually(lambda: bool(bao.ask("POST", lookup, {"token": token})["data"].get("last_renewal")))
    assert bao.lives(token)


async def test_a_refused_renewal_is_logged_once_and_the_token_serves_on(
    transit_key: Any, standin: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever watches the log knows ahead of the end; until then calls are answered with the token that there is."""
    auth = {"client_token": "s.x", "lease_duration": 1, "policies": ["default"]}
    standin.reply("auth/approle/login", 200, {"auth": auth})
    standin.reply("transit/encrypt/tokens", 200, {"data": {"ciphertext": "vault:v1:QUJD"}})
    secret_id = transit_key.file("secret-id", "an-id")
    uri = standin.uri(tmp_path).partition("?")[0] + f"?role_id=r&secret_id_file={secret_id}"
    async with open_transit(uri) as kms:
        standin.reply("auth/approle/login", 503, {"errors": ["Vault is sealed"]})
        logins = [path for _, path, _ in standin.requests].count("/v1/auth/approle/login")
        await _eventually(
            lambda: [path for _, path, _ in standin.requests].count("/v1/auth/approle/login") >= logins + 2
        )
        await kms.wrap(KEY, CONTEXT)
    assert len([record for record in caplog.records if "could not be renewed" in record.message]) == 1
    assert uri in caplog.text
    assert "s.x" not in caplog.text


async def test_a_refused_login_is_not_tried_again_at_once(transit_key: Any, standin: Any, tmp_path: Path) -> None:
    """Servers lock accounts out; many calls make one try."""
    secret_id = transit_key.file("secret-id", "an-id")
    auth = {"client_token": "s.x", "lease_duration": 60, "policies": ["default"]}
    standin.reply("auth/approle/login", 200, {"auth": auth})
    async with open_transit(standin.uri(tmp_path).partition("?")[0] + f"?role_id=r&secret_id_file={secret_id}") as kms:
        standin.reply("auth/approle/login", 400, {"errors": ["invalid role or secret ID"]})
        standin.requests.clear()
        for _ in range(5):
            with pytest.raises(Denied, match="secret_id_file"):
                await kms.wrap(KEY, CONTEXT)
    assert [path for _, path, _ in standin.requests].count("/v1/auth/approle/login") == 1


async def test_a_failure_of_the_renewing_task_is_loud(transit_key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If renewing fails in a way that nobody foresaw, whoever opened the key is stopped and told."""

    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("kms.transit.session.renew", broken)
    with pytest.RaisesGroup(ZeroDivisionError):
        async with open_transit(transit_key.approle_uri(token_ttl="1s")):
            await asyncio.sleep(30)


async def test_tokens_are_in_no_message_and_no_log(transit_key: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither errors, nor their causes, nor representations, nor debug logs show a token."""
    token = transit_key.bao.token(transit_key.mount)
    uri = transit_key.uri(token_file=transit_key.file("token", token))
    with caplog.at_level(logging.DEBUG):
        async with open_transit(uri) as kms:
            shown = [repr(kms), repr(vars(kms)), repr(await kms._session.current())]
            for wrap in (Wrap(key_version="", blob=b"vault:v1:QUJD"), await kms.wrap(KEY, {})):
                with pytest.raises(Exception) as caught:  # noqa: PT011 — whichever error it is, it shows no token
                    await kms.unwrap(wrap, CONTEXT)
                shown += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
            transit_key.bao.revoke(token)
            with pytest.raises(Denied) as refused:
                await kms.wrap(KEY, CONTEXT)
            shown += [str(refused.value), repr(refused.value.__context__), repr(refused.value.__cause__)]
    assert not any(token in text for text in (*shown, caplog.text))
