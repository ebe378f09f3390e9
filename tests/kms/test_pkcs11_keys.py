"""Which keys on a token are taken: others are refused at open, with what is wrong and what to do."""

from __future__ import annotations

from typing import Any

import pkcs11
import pytest
from pkcs11 import Attribute, MechanismFlag

from kms.errors import BadKey
from kms.pkcs11 import open_pkcs11
from kms.port import Description

ORDERS: list[dict[str, Any]] = [
    {"kind": "rsa", "label": "small", "bits": 1024},
    {"kind": "rsa", "label": "given-away", "bits": 2048, "extractable": True},
    {"kind": "rsa", "label": "signs-only", "bits": 2048, "use": int(MechanismFlag.SIGN | MechanismFlag.VERIFY)},
    {"kind": "rsa", "label": "half", "bits": 2048, "public": False},
    {"kind": "rsa", "label": "both", "bits": 2048, "id": "0c"},
    {"kind": "aes", "label": "both", "bits": 256},
    {"kind": "rsa", "label": "twice", "bits": 2048, "id": "0a"},
    {"kind": "rsa", "label": "twice", "bits": 2048, "id": "0b"},
    {
        "kind": "rsa",
        "label": "busy",
        "bits": 2048,
        "use": int(pkcs11.defaults.DEFAULT_KEY_CAPABILITIES[pkcs11.KeyType.RSA]),
    },
    {"kind": "aes", "label": "short", "bits": 128},
    {"kind": "aes", "label": "readable", "bits": 256, "sensitive": False, "extractable": True},
    {"kind": "aes", "label": "encrypts", "bits": 256, "use": int(MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT)},
    {"kind": "des3", "label": "old"},
    {"kind": "import", "label": "brought"},
]


@pytest.fixture(scope="module")
def token(softhsm: Any) -> Any:
    """A token with keys that are wrong in one way each."""
    made = softhsm.token()
    softhsm.make(made, ORDERS)
    return made


async def described(uri: str) -> Description:
    """What is said of the key at `uri`."""
    async with open_pkcs11(uri) as kms:
        return await kms.describe()


@pytest.mark.parametrize(
    ("label", "more", "said"),
    [
        ("small", "", "1024 bits; make one of 2048"),
        ("given-away", "", "CKA_EXTRACTABLE false"),
        ("signs-only", "", "may not decrypt"),
        ("half", "", "no public key"),
        ("short", "", "16 bytes; make one of 32"),
        ("readable", "", "CKA_SENSITIVE must be true"),
        ("encrypts", "", "CKA_WRAP, CKA_UNWRAP"),
        ("old", "", "neither an RSA key pair nor an AES key"),
        ("absent", "", "no key on the token matches.*'small'.*'short'"),
        ("twice", ";type=secret-key", "no key on the token matches"),
        ("twice", ";id=%0d", "no key on the token matches"),
    ],
)
async def test_an_unfit_key_is_refused_with_its_fault(
    softhsm: Any, token: Any, label: str, more: str, said: str
) -> None:
    """A key of another type, size, protection or use, or none at all, is BadKey, and the message says which."""
    with pytest.raises(BadKey, match=said):
        await described(softhsm.uri(token, label, more=more))


async def test_two_keys_of_one_label_are_told_apart_by_id(softhsm: Any, token: Any) -> None:
    """A label that two keys share is BadKey and lists their ids; the id in the URI settles it."""
    with pytest.raises(BadKey, match="several keys match") as refused:
        await described(softhsm.uri(token, "twice"))
    assert "'twice' (id 0a)" in str(refused.value)
    assert "'twice' (id 0b)" in str(refused.value)
    assert "RSA-OAEP" in (await described(softhsm.uri(token, "twice", more=";id=%0a"))).provider


async def test_two_kinds_of_one_label_are_told_apart_by_type(softhsm: Any, token: Any) -> None:
    """A label that an RSA and an AES key share is BadKey; the type in the URI settles it, and the mechanism with it."""
    with pytest.raises(BadKey, match="type=private or type=secret-key"):
        await described(softhsm.uri(token, "both"))
    assert "AES key wrap" in (await described(softhsm.uri(token, "both", more=";type=secret-key"))).provider
    assert "RSA-OAEP" in (await described(softhsm.uri(token, "both", more=";type=private"))).provider


async def test_a_hash_that_the_token_lacks_is_said_at_open(softhsm: Any, token: Any) -> None:
    """SoftHSM has no OAEP with SHA-256: the default is BadKey there, and names the option that helps."""
    with pytest.raises(BadKey, match=r"RSA-OAEP with sha256.*oaep-hash=sha1"):
        await described(softhsm.uri(token, "twice", more=";id=%0a").replace("oaep-hash=sha1", "oaep-hash=sha256"))


async def test_a_key_for_several_purposes_is_taken_with_a_warning(softhsm: Any, token: Any) -> None:
    """What a key may do beyond wrapping is named in a warning."""
    (_, warning) = (await described(softhsm.uri(token, "busy"))).warnings
    assert "CKA_SIGN, CKA_UNWRAP" in warning


async def test_an_imported_key_is_taken_with_a_warning(softhsm: Any, token: Any) -> None:
    """A key that was not made on the token may have copies, and a warning says so."""
    (_, warning) = (await described(softhsm.uri(token, "brought"))).warnings
    assert "was not made on this token" in warning


async def test_softhsm_is_called_software(softhsm: Any, token: Any) -> None:
    """SoftHSM counts as no HSM, and a warning says why; manufacturer, firmware and token are named."""
    description = await described(softhsm.uri(token, "twice", more=";id=%0a"))
    assert not description.hsm
    assert description.warnings == ("SoftHSM is software: whoever reads its token folder and the PIN file has the key",)
    assert description.provider.startswith("pkcs11: SoftHSM project SoftHSM v2, firmware 2.")
    assert token.label in description.provider


async def test_aes_key_wrap_leaves_nothing_behind(softhsm: Any, token: Any) -> None:
    """After wraps, unwraps and a refused blob there is no more on the token or in its sessions than before."""
    uri = softhsm.uri(token, "both", more=";type=secret-key")
    async with open_pkcs11(uri) as kms:
        before = secret_keys(softhsm, token)
        wrap = await kms.wrap(bytes(32), {})
        await kms.unwrap(wrap, {})
        with pytest.raises(Exception, match="this blob"):
            await kms.unwrap(type(wrap)(key_version="", blob=bytes(len(wrap.blob))), {})
        assert secret_keys(softhsm, token) == before


def secret_keys(softhsm: Any, token: Any) -> int:
    """How many secret keys a session of this process sees, stored or not."""
    found = pkcs11.lib(str(softhsm.module.resolve())).get_token(token_serial=token.serial.encode())
    with found.open() as session:
        return len(list(session.get_objects({Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY})))
