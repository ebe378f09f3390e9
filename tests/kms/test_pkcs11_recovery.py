"""What a PKCS#11 key survives (lost sessions, logins and libraries), and what it does not: a key that is gone."""

from __future__ import annotations

import ctypes
import shutil
from typing import Any

import pkcs11
import pytest

from kms.binding import bind
from kms.errors import Corrupt, Denied, Disabled, Unavailable
from kms.pkcs11 import open_pkcs11
from kms.port import Wrap

KEY = bytes(range(32))
CONTEXT = {"keyring": "recovery"}


@pytest.fixture
def token(softhsm: Any) -> Any:
    """A token with a key of each kind."""
    made = softhsm.token()
    softhsm.make(made, [{"kind": "rsa", "label": "rsa", "bits": 2048}, {"kind": "aes", "label": "aes", "bits": 256}])
    return made


class Behind:
    """The same library, called past the adapter, as a driver does that loses its device."""

    def __init__(self, softhsm: Any, token: Any) -> None:
        self._c = ctypes.CDLL(str(softhsm.module.resolve()))
        self._library = pkcs11.lib(str(softhsm.module.resolve()))
        self._token = self._library.get_token(token_serial=token.serial.encode())

    def close_all_sessions(self) -> None:
        """Every session of this process on the token is closed, and its login with them."""
        assert self._c.C_CloseAllSessions(ctypes.c_ulong(self._token.slot.slot_id)) == 0

    def log_out(self) -> None:
        """The sessions stay, the login goes."""
        with self._token.open() as session:
            assert self._c.C_Logout(ctypes.c_ulong(session.handle)) == 0

    def finalise(self) -> None:
        """The library forgets everything, unknown to python-pkcs11."""
        assert self._c.C_Finalize(None) == 0

    def reinitialise(self) -> None:
        """The library forgets everything, and begins anew."""
        self._library.reinitialize()


@pytest.mark.parametrize("label", ["rsa", "aes"])
@pytest.mark.parametrize("loss", ["close_all_sessions", "log_out", "finalise", "reinitialise"])
async def test_a_lost_session_costs_nobody_a_call(softhsm: Any, token: Any, label: str, loss: str) -> None:
    """Whatever is lost behind the adapter's back, the next unwrap and the next wrap are answered."""
    async with open_pkcs11(softhsm.uri(token, label)) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        getattr(Behind(softhsm, token), loss)()
        assert await kms.unwrap(wrap, CONTEXT) == KEY
        getattr(Behind(softhsm, token), loss)()
        assert await kms.unwrap(await kms.wrap(KEY, CONTEXT), CONTEXT) == KEY


async def test_what_one_key_restarts_every_key_finds_again(softhsm: Any, token: Any) -> None:
    """Keys share the library: after one of them has started it anew, the others find themselves, and not each other."""
    async with open_pkcs11(softhsm.uri(token, "rsa")) as rsa, open_pkcs11(softhsm.uri(token, "aes")) as aes:
        wraps = [await rsa.wrap(KEY, CONTEXT), await aes.wrap(KEY, CONTEXT)]
        Behind(softhsm, token).close_all_sessions()
        assert await rsa.unwrap(wraps[0], CONTEXT) == KEY
        assert await aes.unwrap(wraps[1], CONTEXT) == KEY
        assert await rsa.unwrap(await rsa.wrap(KEY, CONTEXT), CONTEXT) == KEY


async def test_closing_one_key_leaves_the_login_of_the_others(softhsm: Any, token: Any) -> None:
    """A login is the process's: closing a key must not log out the other keys of its token."""
    async with open_pkcs11(softhsm.uri(token, "rsa")) as rsa:
        wrap = await rsa.wrap(KEY, CONTEXT)
        async with open_pkcs11(softhsm.uri(token, "aes")) as aes:
            await aes.check()
        assert await rsa.unwrap(wrap, CONTEXT) == KEY


async def test_after_the_last_key_the_process_is_logged_out(softhsm: Any, token: Any) -> None:
    """Once every key is closed, private objects of the token are out of reach for this process."""
    async with open_pkcs11(softhsm.uri(token, "rsa")):
        assert private_keys(softhsm, token) == 1
    assert private_keys(softhsm, token) == 0


async def test_a_key_that_is_destroyed_is_disabled(softhsm: Any, token: Any) -> None:
    """A key that somebody destroys on the token is Disabled from the next call on, and names what there is."""
    async with open_pkcs11(softhsm.uri(token, "aes")) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        softhsm.make(token, [{"kind": "destroy", "label": "aes"}])
        for _ in range(2):
            with pytest.raises(Disabled, match="no key on the token matches"):
                await kms.unwrap(wrap, CONTEXT)
        with pytest.raises(Disabled):
            await kms.check()


async def test_a_key_that_is_replaced_opens_nothing_of_the_old_one(softhsm: Any, token: Any) -> None:
    """Another key under the same label is used from then on, and what the old one wrapped is Corrupt."""
    async with open_pkcs11(softhsm.uri(token, "aes")) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        softhsm.make(token, [{"kind": "destroy", "label": "aes"}, {"kind": "aes", "label": "aes", "bits": 256}])
        with pytest.raises(Corrupt):
            await kms.unwrap(wrap, CONTEXT)


async def test_a_key_that_is_replaced_by_an_unfit_one_is_denied(softhsm: Any, token: Any) -> None:
    """A key that no longer is what it was when it was opened is refused, as a key that changed hands."""
    async with open_pkcs11(softhsm.uri(token, "aes")) as kms:
        softhsm.make(token, [{"kind": "destroy", "label": "aes"}, {"kind": "aes", "label": "aes", "bits": 128}])
        with pytest.raises(Denied, match="16 bytes"):
            await kms.wrap(KEY, CONTEXT)


async def test_a_pin_file_that_is_away_at_a_new_login_is_unavailable(softhsm: Any, token: Any) -> None:
    """A file that is missing meanwhile is an outage; with the file, the key is back."""
    async with open_pkcs11(softhsm.uri(token, "rsa")) as kms:
        away = token.pin_file.rename(token.pin_file.with_suffix(".away"))
        Behind(softhsm, token).close_all_sessions()
        with pytest.raises(Unavailable, match="cannot be read"):
            await kms.check()
        away.rename(token.pin_file)
        await kms.check()


async def test_a_pin_that_was_changed_is_denied_and_tried_once(softhsm: Any, token: Any) -> None:
    """A new login with a PIN that is no longer right is Denied, and not repeated at every call."""
    async with open_pkcs11(softhsm.uri(token, "rsa")) as kms:
        token.pin_file.write_text("992342")
        Behind(softhsm, token).close_all_sessions()
        with pytest.raises(Denied, match="refuses the PIN"):
            await kms.check()
        with pytest.raises(Denied, match="not tried again"):
            await kms.check()


async def test_a_token_that_appears_is_found(softhsm: Any, token: Any) -> None:
    """A token that came after the library was started is found, without costing the key that is in use."""
    async with open_pkcs11(softhsm.uri(token, "rsa")) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        later = softhsm.token()
        softhsm.aes(later, "aes")
        async with open_pkcs11(softhsm.uri(later, "aes")) as new:
            await new.check()
        assert await kms.unwrap(wrap, CONTEXT) == KEY


async def test_a_token_that_disappears_is_unavailable(softhsm: Any, token: Any) -> None:
    """A token that is gone, as an HSM that is switched off, is no answer and no refusal."""
    async with open_pkcs11(softhsm.uri(token, "aes")) as kms:
        shutil.rmtree(token.folder)
        for _ in range(2):
            with pytest.raises(Unavailable, match="no token matches"):
                await kms.check()


@pytest.mark.parametrize("label", ["rsa", "aes"])
async def test_a_damaged_blob_does_not_cost_the_session(softhsm: Any, token: Any, label: str) -> None:
    """SoftHSM calls a wrong blob CKR_GENERAL_ERROR: a round trip shows that the token is well, so it is Corrupt."""
    async with open_pkcs11(softhsm.uri(token, label)) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        for blob in (bytes(len(wrap.blob)), b"\xff" * len(wrap.blob), wrap.blob[::-1]):
            with pytest.raises(Corrupt, match="not this blob"):
                await kms.unwrap(Wrap(key_version="", blob=blob), CONTEXT)
        assert await kms.unwrap(wrap, CONTEXT) == KEY


async def test_a_blob_made_with_the_public_key_opens_here(softhsm: Any, token: Any) -> None:
    """An RSA key cannot tell who wrapped: it opens a forged wrap, and the MAC of its row is what stops it."""
    async with open_pkcs11(softhsm.uri(token, "rsa")) as kms:
        found = pkcs11.lib(str(softhsm.module.resolve())).get_token(token_serial=token.serial.encode())
        with found.open() as session:
            public = session.get_key(pkcs11.ObjectClass.PUBLIC_KEY, label="rsa")
            sha1 = (pkcs11.Mechanism.SHA_1, pkcs11.MGF.SHA1, None)
            forged = public.encrypt(bind(KEY, CONTEXT), mechanism=pkcs11.Mechanism.RSA_PKCS_OAEP, mechanism_param=sha1)
        assert await kms.unwrap(Wrap(key_version="", blob=forged), CONTEXT) == KEY


def private_keys(softhsm: Any, token: Any) -> int:
    """How many private keys a session of this process sees: none unless the process is logged in."""
    found = pkcs11.lib(str(softhsm.module.resolve())).get_token(token_serial=token.serial.encode())
    with found.open() as session:
        return len(list(session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY})))
