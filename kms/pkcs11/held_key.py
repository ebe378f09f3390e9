"""The key and its hold on the module: found when it is needed, found again when session, login or device were lost.

The port's side, contexts and callers, is in `adapter`; what the token's errors mean is in `answers`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TypeVar

import pkcs11
from pkcs11 import Session
from pkcs11.exceptions import PKCS11Error

from kms.binding import BOUND_BYTES
from kms.errors import BadKey, Corrupt, Denied, Disabled, KmsError, Unavailable
from kms.pkcs11.answers import BLAMES_INPUT, BLAMES_NOBODY, is_lost, translated
from kms.pkcs11.module import Module
from kms.pkcs11.uri import Pkcs11Uri
from kms.pkcs11.wrapping_key import WrappingKey, find_key
from kms.port import Description

SOFTHSM = "SoftHSM is software: whoever reads its token folder and the PIN file has the key"

_UNSERVED = (
    pkcs11.ArgumentsBad,
    pkcs11.AttributeSensitive,
    pkcs11.AttributeValueInvalid,
    pkcs11.FunctionNotSupported,
    pkcs11.KeyUnextractable,
    pkcs11.MechanismInvalid,
    pkcs11.MechanismParamInvalid,
    pkcs11.TemplateInconsistent,
)
"""How tokens say that they do not serve a mechanism, a hash, or an object that a session may read."""

T = TypeVar("T")


class HeldKey:
    """One key of a module; used on the module's thread alone.

    When session, login or device are lost, the library is started anew, once for each call. Keys that share the module
    notice that by its epoch, and find theirs again.
    """

    def __init__(self, *, uri: Pkcs11Uri, module: Module) -> None:
        self._uri = uri
        self._module = module
        self._joined = False
        self._served = False
        self._epoch = -1
        self._found: tuple[Session, WrappingKey] | None = None

    def open(self) -> None:
        """Find the key and prove that it wraps and unwraps."""
        self._module.join()
        self._joined = True
        self._serve(_first_proved)
        self._served = True

    def close(self) -> None:
        """Let go of the module, if `open` was called."""
        self._found = None
        if self._joined:
            self._joined = False
            self._module.leave()

    def wrap(self, bound: bytes) -> bytes:
        """The blob of `bound`."""
        return self._serve(lambda session, key: key.wrap(bound))

    def unwrap(self, blob: bytes) -> bytes:
        """What `blob` holds. Corrupt: it is not this key's."""
        return self._serve(lambda session, key: _opened(key, blob))

    def check(self) -> None:
        """Wrap and unwrap something."""
        self._serve(lambda session, key: _prove(key))

    def describe(self) -> Description:
        """The token as it is now."""
        return self._serve(_described)

    def _serve(self, operation: Callable[[Session, WrappingKey], T]) -> T:
        """What `operation` gives, tried again once on a library started anew. The place where errors are translated."""
        try:
            try:
                return operation(*self._attached())
            except PKCS11Error as error:
                if not is_lost(error):
                    raise
            self._module.end()
            return operation(*self._attached())
        except PKCS11Error as error:
            raise translated(error) from error

    def _attached(self) -> tuple[Session, WrappingKey]:
        """The session and the key, found again if the library was started anew.

        Before the first success whatever is wrong is BadKey, for a person sits there. Later a key that is gone is
        Disabled, one that is not what it was is Denied, and a PIN file that cannot be read is Unavailable.
        """
        if self._found is None or self._epoch != self._module.epoch:
            self._found = None
            self._epoch = self._module.epoch
            try:
                session = self._module.session(self._uri)
                key = find_key(session, self._uri, missing=Disabled if self._served else BadKey)
            except BadKey as error:
                if self._served:
                    raise Denied(str(error)) from error
                raise
            except OSError as error:
                kind: type[KmsError] = Unavailable if self._served else BadKey
                raise kind(f"the PIN file {self._uri.pin_file} cannot be read: {error.strerror}") from error
            self._found = (session, key)
        return self._found


def _opened(key: WrappingKey, blob: bytes) -> bytes:
    """What `blob` holds. Where the token blames nobody, a round trip tells whether the blob is at fault."""
    if len(blob) != key.blob_bytes:
        raise Corrupt(f"what this key wraps has {key.blob_bytes} bytes, and this has {len(blob)}")
    try:
        return key.unwrap(blob)
    except BLAMES_INPUT as error:
        raise translated(error) from error
    except BLAMES_NOBODY as error:
        _prove(key)
        raise Corrupt(
            "the token opens what it wraps, and not this blob: it was changed, or is another key's"
        ) from error


def _prove(key: WrappingKey) -> None:
    sample = secrets.token_bytes(BOUND_BYTES)
    if key.unwrap(key.wrap(sample)) != sample:
        raise Corrupt("the key does not open what it wrapped")


def _first_proved(session: Session, key: WrappingKey) -> None:
    try:
        _prove(key)
    except _UNSERVED as error:
        what = type(error).__name__
        raise BadKey(f"the token does not serve {key.mechanism} with this key ({what}); {key.remedy}") from error


def _described(session: Session, key: WrappingKey) -> Description:
    token = session.token.slot.get_token()
    soft = "softhsm" in token.manufacturer_id.lower()
    firmware = ".".join(str(part) for part in token.firmware_version)
    named = f"{token.manufacturer_id} {token.model}, firmware {firmware}, token {token.label!r}, {key.mechanism}"
    return Description(
        provider=f"pkcs11: {named if named.isprintable() else ascii(named)}",
        state="enabled",
        key_version="",
        hsm=not soft,
        warnings=(SOFTHSM, *key.warnings) if soft else key.warnings,
    )
