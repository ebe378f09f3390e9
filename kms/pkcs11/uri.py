"""The URI of a PKCS#11 key (RFC 7512): `pkcs11:token=LABEL;object=LABEL?module-path=PATH&pin-source=file:PATH`.

Which token and object they mean is found by `module` and `wrapping_key`. Whether the files exist is not known here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from kms.errors import BadKey
from kms.key_uri import decoded, named, split_uri

SCHEME = "pkcs11"
EXAMPLE = "pkcs11:token=LABEL;object=LABEL?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/PIN"
OAEP_HASHES = ("sha256", "sha1")
"""What RSA-OAEP may hash with; the first is what a URI without `oaep-hash` means."""
KEY_TYPES = ("private", "secret-key")
"""The values of `type` in RFC 7512 that can open a wrapped key: an RSA key pair, or an AES key."""

_PATH = ("token", "serial", "manufacturer", "model", "slot-id", "object", "id", "type")
_PIN = re.compile(r"[:;?&]pin-value=", re.IGNORECASE)
_QUERY = ("module-path", "pin-source", "oaep-hash")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pkcs11Uri:
    """Where a key is. None matches anything; a token and an object are each named by at least one field."""

    module_path: Path
    pin_file: Path
    token: str | None = None
    serial: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    slot_id: int | None = None
    label: str | None = None
    key_id: bytes | None = None
    key_type: str | None = None
    oaep_hash: str = OAEP_HASHES[0]


def parse_uri(uri: str) -> Pkcs11Uri:
    """What `uri` says. Raises BadKey; messages name attributes, and never their values."""
    if _PIN.search(uri):
        raise BadKey(
            "pin-value puts a secret into a URI, which is logged and stored; write the PIN into a file of mode 600 and "
            "name it with pin-source=file:PATH"
        )
    path, options = split_uri(uri, scheme=SCHEME, example=EXAMPLE, options=_QUERY)
    found = _attributes(path)
    if not {"token", "serial", "slot-id"} & set(found):
        raise BadKey("name the token: token=LABEL, serial=NUMBER or slot-id=NUMBER")
    if not {"object", "id"} & set(found):
        raise BadKey("name the key: object=LABEL or id=%..")
    return Pkcs11Uri(
        module_path=_module_path(options),
        pin_file=_pin_file(options),
        token=_text(found, "token"),
        serial=_text(found, "serial"),
        manufacturer=_text(found, "manufacturer"),
        model=_text(found, "model"),
        slot_id=_number(found, "slot-id"),
        label=_text(found, "object"),
        key_id=unquote_to_bytes(found["id"]) if "id" in found else None,
        key_type=_one_of(KEY_TYPES, _text(found, "type"), name="type"),
        oaep_hash=_one_of(OAEP_HASHES, options.get("oaep-hash"), name="oaep-hash") or OAEP_HASHES[0],
    )


def _attributes(path: str) -> dict[str, str]:
    """The path attributes, not yet decoded: `id` holds bytes, the others hold text."""
    found: dict[str, str] = {}
    for part in path.split(";"):
        name, _, value = part.partition("=")
        if name not in _PATH:
            raise BadKey(f"unknown attribute{named(part)}; before the ? a {SCHEME} key takes: {', '.join(_PATH)}")
        if name in found or not value:
            raise BadKey(f"the attribute {name} is given once, with a value")
        found[name] = value
    return found


def _text(found: dict[str, str], name: str) -> str | None:
    return decoded(found[name]) if name in found else None


def _number(found: dict[str, str], name: str) -> int | None:
    text = _text(found, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise BadKey(f"the attribute {name} is a whole number")
    return int(text)


def _one_of(known: tuple[str, ...], value: str | None, *, name: str) -> str | None:
    if value is not None and value not in known:
        raise BadKey(f"{name} is one of: {', '.join(known)}")
    return value


def _module_path(options: dict[str, str]) -> Path:
    if "module-path" not in options:
        raise BadKey("name the PKCS#11 library of the HSM's vendor: module-path=PATH")
    path = Path(options["module-path"])
    if not path.is_absolute():
        # A bare name would be looked up in LD_LIBRARY_PATH: whoever sets that would get the PIN.
        raise BadKey("module-path is an absolute path")
    return path


def _pin_file(options: dict[str, str]) -> Path:
    scheme, _, path = options.get("pin-source", "").partition(":")
    # file:///etc/pin and file:/etc/pin are the same file (RFC 8089).
    path = path.removeprefix("//")
    if scheme != "file" or not path.startswith("/"):
        raise BadKey("say where the PIN of the token's user is: pin-source=file:/PATH; nothing but a file is served")
    return Path(path)
