"""URIs of PKCS#11 keys: what they mean, and which are refused before any library is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from kms.errors import BadKey
from kms.pkcs11 import open_pkcs11
from kms.pkcs11.uri import parse_uri

FILES = "module-path=/lib/hsm.so&pin-source=file:/etc/pin"


def test_every_attribute_is_understood() -> None:
    """Percent-encoding is undone; an id is bytes, a slot-id a number."""
    where = parse_uri(
        "pkcs11:token=my%20token;serial=00af;manufacturer=A%3BB;model=M%3F;slot-id=7;object=k%C3%A9y;id=%01%FF;"
        "type=private?module-path=/lib/my%20hsm.so&pin-source=file:/etc/my%20pin&oaep-hash=sha1"
    )
    assert (where.token, where.serial, where.manufacturer, where.model) == ("my token", "00af", "A;B", "M?")
    assert (where.slot_id, where.label, where.key_id, where.key_type) == (7, "kéy", b"\x01\xff", "private")
    assert (where.module_path, where.pin_file) == (Path("/lib/my hsm.so"), Path("/etc/my pin"))
    assert where.oaep_hash == "sha1"


def test_oaep_hashes_with_sha256_unless_told() -> None:
    """SHA-1 is taken only where the URI says so."""
    assert parse_uri(f"pkcs11:token=t;object=o?{FILES}").oaep_hash == "sha256"


def test_a_pin_file_may_be_written_as_a_full_file_uri() -> None:
    """file:///etc/pin is /etc/pin, as in RFC 8089."""
    assert parse_uri("pkcs11:token=t;object=o?module-path=/l&pin-source=file:///etc/pin").pin_file == Path("/etc/pin")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("pkcs11:", "reads like"),
        (f"pkcs11:?{FILES}", "reads like"),
        (f"pkcs11:object=o?{FILES}", "name the token"),
        (f"pkcs11:token=t?{FILES}", "name the key"),
        (f"pkcs11:token=t;object=o;colour=red?{FILES}", "unknown attribute 'colour'"),
        (f"pkcs11:token=t;token=u;object=o?{FILES}", "given once"),
        (f"pkcs11:token=;object=o?{FILES}", "given once"),
        (f"pkcs11:token=t;object=o;?{FILES}", "unknown attribute; before"),
        (f"pkcs11:token=t%00;object=o?{FILES}", "NUL"),
        (f"pkcs11:slot-id=x;object=o?{FILES}", "whole number"),
        (f"pkcs11:slot-id=-1;object=o?{FILES}", "whole number"),
        (f"pkcs11:token=t;object=o;type=cert?{FILES}", "type is one of"),
        (f"pkcs11:token=t;object=o?{FILES}&oaep-hash=md5", "oaep-hash is one of"),
        (f"pkcs11:token=t;object=o?{FILES}&module-name=softhsm", "unknown option 'module-name'"),
        (f"pkcs11:token=t;object=o?{FILES}&pin-source=file:/b", "given once"),
        ("pkcs11:token=t;object=o?pin-source=file:/etc/pin", "module-path=PATH"),
        ("pkcs11:token=t;object=o?module-path=hsm.so&pin-source=file:/etc/pin", "absolute"),
        ("pkcs11:token=t;object=o?module-path=/lib/hsm.so", "pin-source=file:"),
        ("pkcs11:token=t;object=o?module-path=/lib/hsm.so&pin-source=/etc/pin", "pin-source=file:"),
        ("pkcs11:token=t;object=o?module-path=/lib/hsm.so&pin-source=file:pin", "pin-source=file:"),
        ("pkcs11:token=t;object=o?module-path=/lib/hsm.so&pin-source=%7Ccat%20pin", "pin-source=file:"),
    ],
)
def test_a_malformed_uri_says_what_is_wrong(uri: str, said: str) -> None:
    """Unknown, repeated, empty, missing and misspelt attributes are BadKey, each by name."""
    with pytest.raises(BadKey, match=said):
        parse_uri(uri)


async def test_a_pin_in_the_uri_is_refused_and_not_repeated() -> None:
    """pin-value is BadKey with its reason, and the PIN is in no message."""
    with pytest.raises(BadKey, match="pin-value puts a secret into a URI") as refused:
        async with open_pkcs11("pkcs11:token=t;object=o?module-path=/lib/hsm.so&pin-value=481516"):
            pass
    assert "481516" not in f"{refused.value!s} {refused.value!r}"
