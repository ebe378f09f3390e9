"""One PKCS#11 library of this process: loaded once, called by one thread, logged in once for each token.

All of that is per process in PKCS#11, not per key: C_Initialize, the login, and the handles. So the modules are a table
of the process, the only one in kms/; keys that name the same library share its entry. Which object is the key, and what
is done with it, does not live here.

One thread, because python-pkcs11 initialises every library with C_Initialize(NULL), which promises it (PKCS#11 v2.40,
section 5.4) that threads never call it together. SoftHSM then takes no locks; four threads soon got wrong keys from it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pkcs11
from pkcs11 import Session, Token, TokenFlag
from pkcs11.exceptions import PKCS11Error

from kms.errors import BadKey, Denied, Unavailable
from kms.pkcs11.answers import PIN_REFUSED, translated
from kms.pkcs11.calls import CallThread
from kms.pkcs11.ending import end, keep_from_ending
from kms.pkcs11.uri import Pkcs11Uri
from kms.private_files import Stamp, read_private, stamp

if TYPE_CHECKING:
    from pkcs11._pkcs11 import lib as Library  # noqa: N812 - a class

LISTED_MAX = 16
"""Tokens that a message lists."""
PIN_BYTES_MAX = 256
"""Longest PIN."""

_lock = threading.Lock()
_modules: dict[Path, Module] = {}


def module_at(path: Path) -> Module:
    """The module of the library at `path`; the same for every key, by whatever name it is called. Loads nothing."""
    # Two names of one file would be one library that is initialised twice, which it refuses.
    resolved = path.resolve()
    with _lock:
        if resolved not in _modules:
            _modules[resolved] = Module(resolved)
        return _modules[resolved]


class Module:
    """One library and what it holds for us. Everything but `thread` and `path` is used on that thread alone.

    It is loaded for the first key and finalised after the last, which ends every session and login of this process.
    The thread stays: there are no more of them than libraries were ever configured.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.thread = CallThread(name=f"pkcs11 {path.name}")
        self.epoch = 0
        """Counts the starts of the library. Handles of an earlier one are void, or mean other objects now."""
        self._users = 0
        self._library: Library | None = None
        self._sessions: dict[int, Session] = {}
        self._refused: dict[tuple[bytes, Path], Stamp | None] = {}

    def join(self) -> None:
        """Count one more key that uses this module."""
        self._users += 1

    def leave(self) -> None:
        """Count one key less; after the last the library is finalised."""
        self._users -= 1
        if not self._users:
            self.end()

    def end(self) -> None:
        """Finalise the library: sessions, logins and handles are void, and the next call begins anew."""
        self.epoch += 1
        self._sessions.clear()
        if self._library is not None:
            end(self._library, self.path)

    def session(self, uri: Pkcs11Uri) -> Session:
        """A session, logged in, on the one token that `uri` means; the same for all keys of that token.

        Raises PKCS11Error, among it NoSuchToken; OSError: the PIN file cannot be read; BadKey: the library is none,
        several tokens match, the token refuses the PIN or has refused it before; Denied: one more wrong PIN would lock
        the token; Unavailable: the library does not start.
        """
        token = _only(_tokens(self._started()), uri)
        # Asked for even if somebody is logged in: a key without its PIN must not depend on who came first.
        read = stamp(uri.pin_file)
        pin = _pin(uri.pin_file)
        slot = token.slot.slot_id
        if slot not in self._sessions:
            self._sessions[slot] = self._log_in(token, pin, uri.pin_file, read)
        return self._sessions[slot]

    def _started(self) -> Library:
        try:
            # Loads it, or initialises it again after `end`.
            library = pkcs11.lib(str(self.path))
        except PKCS11Error as error:
            if type(error) is PKCS11Error:
                raise BadKey(f"module-path is not a PKCS#11 library that can be loaded here: {error}") from error
            raise Unavailable(
                f"the library {self.path} does not start ({type(error).__name__}): its HSM is away, or its own"
                " configuration is missing"
            ) from error
        if self._library is None:
            keep_from_ending(library)
        self._library = library
        return library

    def _log_in(self, token: Token, pin: str, pin_file: Path, read: Stamp | None) -> Session:
        refuse_risky_login(token.flags)
        # Each try counts against the token, and a broker tries as often as it is asked: it would lock the token.
        if self._refused.get((token.serial, pin_file), ()) == read:
            raise BadKey(
                f"the token has refused the PIN in {pin_file}, and it is not tried again until that file changes"
            )
        try:
            return token.open(user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:
            # Somebody else in this process, and then all its sessions are logged in.
            return token.open()
        except PIN_REFUSED as error:
            self._refused[token.serial, pin_file] = read
            raise translated(error) from error


def refuse_risky_login(flags: TokenFlag) -> None:
    """Return if one wrong PIN does no harm. Denied: the PIN is locked, or one more wrong PIN would lock it."""
    if flags & TokenFlag.USER_PIN_LOCKED:
        raise Denied("the PIN of the token's user is locked; its security officer can set a new one")
    if flags & TokenFlag.USER_PIN_FINAL_TRY:
        raise Denied(
            "one more wrong PIN would lock the token; log in once by hand with the right one, which sets the count back"
        )


def _tokens(library: Library) -> Iterator[Token]:
    """The tokens that are there and initialised."""
    for slot in library.get_slots(token_present=True):
        try:
            token = slot.get_token()
        except PKCS11Error:
            # One that is broken or was pulled out just now must not hide the others.
            continue
        if token.flags & TokenFlag.TOKEN_INITIALIZED:
            yield token


def _only(tokens: Iterator[Token], uri: Pkcs11Uri) -> Token:
    present = list(tokens)
    matching = [token for token in present if _matches(token, uri)]
    if len(matching) > 1:
        raise BadKey(f"several tokens match: {_listed(matching)}; add serial=NUMBER to the key URI")
    if not matching:
        raise pkcs11.NoSuchToken(f"no token matches the key URI; there are: {_listed(present) or 'none'}")
    return matching[0]


def _matches(token: Token, uri: Pkcs11Uri) -> bool:
    wanted = (
        (uri.token, token.label),
        (uri.serial, token.serial.decode(errors="replace")),
        (uri.manufacturer, token.manufacturer_id),
        (uri.model, token.model),
        (uri.slot_id, token.slot.slot_id),
    )
    return all(want in (None, found) for want, found in wanted)


def _listed(tokens: list[Token]) -> str:
    """The first of them, and how many more there are."""
    shown = [f"{token.label!r} (serial {token.serial.decode(errors='replace')!r})" for token in tokens[:LISTED_MAX]]
    further = len(tokens) - len(shown)
    return ", ".join([*shown, f"and {further} more"] if further else shown)


def _pin(path: Path) -> str:
    """The PIN in the file at `path`, without the last line end. BadKey: it is open to others, or no PIN.

    Read anew for each login and then dropped, as python-pkcs11 takes text, which Python cannot wipe.
    """
    content = read_private(path, bytes_max=PIN_BYTES_MAX + 2).removesuffix(b"\n").removesuffix(b"\r")
    if not 1 <= len(content) <= PIN_BYTES_MAX:
        raise BadKey(f"a PIN has 1 to {PIN_BYTES_MAX} bytes, and that in {path} has {len(content)}")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BadKey(f"a PIN is UTF-8 text, and that in {path} is not") from None
