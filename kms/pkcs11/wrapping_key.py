"""The key on the token: found, held to what a wrapping key must be, and used. Sessions and errors do not live here.

Two kinds, by what the object is. An RSA pair encrypts and decrypts with CKM_RSA_PKCS_OAEP. An AES key wraps and unwraps
with CKM_AES_KEY_WRAP (RFC 3394), which takes keys instead of bytes: what is wrapped passes through an object of the
session, which is destroyed at once. Both raise PKCS11Error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pkcs11 import MGF, Attribute, KeyType, Mechanism, ObjectClass, Session
from pkcs11.exceptions import AttributeSensitive, AttributeTypeInvalid
from pkcs11.types import DecryptMixin, EncryptMixin, Object, UnwrapMixin, WrapMixin

from kms.binding import BOUND_BYTES
from kms.errors import BadKey, KmsError
from kms.pkcs11.uri import Pkcs11Uri

RSA_BITS_MIN = 2048
"""Smallest RSA key; NIST SP 800-131A rev. 2 allows nothing less."""
AES_BYTES = 32
"""Size of an AES key; the data keys under it have as many bytes."""

_CLASSES = {"private": ObjectClass.PRIVATE_KEY, "secret-key": ObjectClass.SECRET_KEY}
_OAEP = {"sha256": (Mechanism.SHA256, MGF.SHA256, None), "sha1": (Mechanism.SHA_1, MGF.SHA1, None)}
_PASSING: Mapping[Attribute, Any] = {
    Attribute.CLASS: ObjectClass.SECRET_KEY,
    Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
    Attribute.TOKEN: False,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: False,
    Attribute.EXTRACTABLE: True,
}
"""An object of the session, readable by it, never stored on the token."""


class WrappingKey(Protocol):
    """A key on the token that wraps 80 bytes (`kms.binding.BOUND_BYTES`)."""

    @property
    def mechanism(self) -> str:
        """What it wraps with, for people."""
        ...

    @property
    def remedy(self) -> str:
        """What to do where the token does not serve that mechanism."""
        ...

    @property
    def blob_bytes(self) -> int:
        """Size of everything that it wraps."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against this key, and forbids nothing."""
        ...

    def wrap(self, bound: bytes) -> bytes:
        """`bound`, wrapped."""
        ...

    def unwrap(self, blob: bytes) -> bytes:
        """What `blob`, of blob_bytes, was wrapped from."""
        ...


class RsaOaep:
    """An RSA pair. Whoever has its public key can wrap too; what stops that is said in docs/spec/kms-binding.md."""

    def __init__(
        self, *, public: EncryptMixin, private: DecryptMixin, oaep_hash: str, blob_bytes: int, warnings: tuple[str, ...]
    ) -> None:
        self.mechanism = f"RSA-OAEP with {oaep_hash}"
        self.remedy = "a token that knows no SHA-256 here, as SoftHSM, is served with oaep-hash=sha1"
        self.blob_bytes = blob_bytes
        self.warnings = warnings
        self._public = public
        self._private = private
        self._how: dict[str, Any] = {"mechanism": Mechanism.RSA_PKCS_OAEP, "mechanism_param": _OAEP[oaep_hash]}

    def wrap(self, bound: bytes) -> bytes:
        """As the protocol says."""
        return _bytes(self._public.encrypt(bound, **self._how))

    def unwrap(self, blob: bytes) -> bytes:
        """As the protocol says."""
        return _bytes(self._private.decrypt(blob, **self._how))


class AesKeyWrap:
    """An AES key that wraps other keys."""

    mechanism = "AES key wrap (RFC 3394)"
    remedy = "take an RSA key pair where the token does not serve it, or does not let a session read its own objects"
    blob_bytes = BOUND_BYTES + 8
    """RFC 3394, section 2.2.1: one block of 8 bytes more."""

    def __init__(self, *, session: Session, wrapping: WrapMixin, unwrapping: UnwrapMixin, warnings: tuple[str, ...]):
        self.warnings = warnings
        self._session = session
        self._wrapping = wrapping
        self._unwrapping = unwrapping

    def wrap(self, bound: bytes) -> bytes:
        """As the protocol says."""
        passing = self._session.create_object({**_PASSING, Attribute.VALUE: bound})
        try:
            return self._wrapping.wrap_key(passing, mechanism=Mechanism.AES_KEY_WRAP)  # type: ignore[arg-type]  # an object of class SECRET_KEY is a Key
        finally:
            passing.destroy()

    def unwrap(self, blob: bytes) -> bytes:
        """As the protocol says."""
        passing = self._unwrapping.unwrap_key(
            ObjectClass.SECRET_KEY,
            KeyType.GENERIC_SECRET,
            blob,
            mechanism=Mechanism.AES_KEY_WRAP,
            template=dict(_PASSING),
        )
        try:
            return _bytes(passing[Attribute.VALUE])
        finally:
            passing.destroy()


def find_key(session: Session, uri: Pkcs11Uri, *, missing: type[KmsError]) -> WrappingKey:
    """The one key that `uri` names. missing: what is raised if there is none.

    BadKey: several match, or it is not what a wrapping key must be; the message says what, and what to do.
    """
    classes = [_CLASSES[uri.key_type]] if uri.key_type else list(_CLASSES.values())
    named: dict[Attribute, Any] = {}
    if uri.label is not None:
        named[Attribute.LABEL] = uri.label
    if uri.key_id is not None:
        named[Attribute.ID] = uri.key_id
    found = _stored(session, classes, named)
    if not found:
        raise missing(
            "no key on the token matches the key URI; there are: " + (_listed(_stored(session, classes, {})) or "none")
        )
    if len(found) > 1:
        raise BadKey(f"several keys match: {_listed(found)}; add id=%.. or type=private or type=secret-key")
    key = found[0]
    _require_kept(key)
    kind = _read(key, Attribute.KEY_TYPE)
    if kind == KeyType.RSA:
        return _rsa(session, key, uri.oaep_hash)
    if kind == KeyType.AES:
        return _aes(session, key)
    raise BadKey("the key is neither an RSA key pair nor an AES key; make one of these")


def _stored(session: Session, classes: list[ObjectClass], named: Mapping[Attribute, Any]) -> list[Object]:
    """Objects of the token; by class, label and id alone, for not every token lets other attributes be searched for."""
    found = [each for kind in classes for each in session.get_objects({Attribute.CLASS: kind, **named})]
    return [each for each in found if _read(each, Attribute.TOKEN) is not False]


def _require_kept(key: Object) -> None:
    """BadKey: the token would give the key away."""
    if _read(key, Attribute.SENSITIVE) is not True or _read(key, Attribute.EXTRACTABLE) is not False:
        raise BadKey(
            "the token would give the key away (CKA_SENSITIVE must be true, CKA_EXTRACTABLE false); make another, for"
            " copies of this one may exist"
        )
    if _read(key, Attribute.ALWAYS_AUTHENTICATE):
        raise BadKey("the key asks for the PIN at each use (CKA_ALWAYS_AUTHENTICATE), which a broker cannot give")


def _rsa(session: Session, private: Object, oaep_hash: str) -> RsaOaep:
    modulus = int.from_bytes(_bytes(private[Attribute.MODULUS]))
    bits = modulus.bit_length()
    if bits < RSA_BITS_MIN:
        raise BadKey(f"the RSA key has {bits} bits; make one of {RSA_BITS_MIN} or more")
    if not isinstance(private, DecryptMixin):
        raise BadKey("the private key may not decrypt (CKA_DECRYPT); make one that may")
    key_id = _read(private, Attribute.ID)
    publics = _stored(session, [ObjectClass.PUBLIC_KEY], {Attribute.ID: key_id} if key_id else {})
    # The modulus decides: what another key's public half wrapped, nothing would open.
    halves = [each for each in publics if int.from_bytes(_read(each, Attribute.MODULUS) or b"") == modulus]
    public = next((each for each in halves if isinstance(each, EncryptMixin)), None)
    if public is None:
        raise BadKey(
            "the token holds no public key of its id and modulus that may encrypt (CKA_ENCRYPT); store that half too"
        )
    needless = (Attribute.SIGN, Attribute.UNWRAP, Attribute.DERIVE)
    return RsaOaep(
        public=public,
        private=private,
        oaep_hash=oaep_hash,
        blob_bytes=(bits + 7) // 8,
        warnings=_warnings(private, needless),
    )


def _aes(session: Session, key: Object) -> AesKeyWrap:
    size = _read(key, Attribute.VALUE_LEN)
    if size != AES_BYTES:
        raise BadKey(f"the AES key has {size} bytes; make one of {AES_BYTES}")
    if not isinstance(key, WrapMixin) or not isinstance(key, UnwrapMixin):
        raise BadKey("the AES key may not wrap and unwrap (CKA_WRAP, CKA_UNWRAP); make one that may")
    needless = (Attribute.ENCRYPT, Attribute.DECRYPT, Attribute.SIGN, Attribute.DERIVE)
    return AesKeyWrap(session=session, wrapping=key, unwrapping=key, warnings=_warnings(key, needless))


def _warnings(key: Object, needless: tuple[Attribute, ...]) -> tuple[str, ...]:
    more = [f"CKA_{each.name}" for each in needless if _read(key, each)]
    warnings = []
    if more:
        warnings.append(f"the key may do more than the broker needs ({', '.join(more)}): whoever has its PIN may too")
    if _read(key, Attribute.LOCAL) is not True or _read(key, Attribute.NEVER_EXTRACTABLE) is not True:
        warnings.append("the key was not made on this token, or could once leave it: copies may exist")
    return tuple(warnings)


def _read(key: Object, attribute: Attribute) -> Any:
    """Its value; None where the object has none, or one that python-pkcs11 does not know."""
    try:
        return key[attribute]
    except (AttributeTypeInvalid, AttributeSensitive, ValueError):
        return None


def _bytes(answer: object) -> bytes:
    if not isinstance(answer, bytes):
        raise TypeError(f"python-pkcs11 answers with bytes, and this is {type(answer).__name__}")
    return answer


def _listed(keys: list[Object]) -> str:
    return ", ".join(
        f"{_read(key, Attribute.LABEL)!r} (id {(_read(key, Attribute.ID) or b'').hex() or 'none'})" for key in keys[:16]
    )
