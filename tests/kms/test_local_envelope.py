"""The wrapped key of the local KMS: its use of HPKE, its encoding of the context, its pinned bytes."""

from __future__ import annotations

import hmac
import json
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import example, given
from hypothesis import strategies as st

from kms.conformance import CONTEXT, KEY
from kms.errors import Corrupt
from kms.local import open_local
from kms.local.envelope import BLOB_BYTES, info, unwrap_key, version_of, wrap_key
from kms.port import Wrap

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "kms_local.json").read_text())
PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PLACE: dict[str, Any] = {"key_id": "0" * 32, "version": 1, "context": CONTEXT}

# --- RFC 9180, written from its text with nothing but X25519, HMAC and AES-GCM, to check the library and our use of it.

KEM_SUITE = b"KEM" + (0x0020).to_bytes(2, "big")
HPKE_SUITE = b"HPKE" + (0x0020).to_bytes(2, "big") + (0x0001).to_bytes(2, "big") + (0x0002).to_bytes(2, "big")


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    """LabeledExtract, section 4."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, sha256)


def _expand(suite: bytes, prk: bytes, label: bytes, value: bytes, length: int) -> bytes:
    """LabeledExpand, section 4, for at most 32 bytes."""
    return hmac.digest(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + value + b"\1", sha256)[:length]


def _key_and_nonce(private_key: X25519PrivateKey, enc: bytes, info_bytes: bytes) -> tuple[bytes, bytes]:
    """Decap (section 4.1) and KeySchedule in base mode (section 5.1)."""
    shared = private_key.exchange(X25519PublicKey.from_public_bytes(enc))
    kem_context = enc + private_key.public_key().public_bytes_raw()
    shared_secret = _expand(KEM_SUITE, _extract(KEM_SUITE, b"", b"eae_prk", shared), b"shared_secret", kem_context, 32)
    schedule = (
        b"\0" + _extract(HPKE_SUITE, b"", b"psk_id_hash", b"") + _extract(HPKE_SUITE, b"", b"info_hash", info_bytes)
    )
    secret = _extract(HPKE_SUITE, shared_secret, b"secret", b"")
    return _expand(HPKE_SUITE, secret, b"key", schedule, 32), _expand(HPKE_SUITE, secret, b"base_nonce", schedule, 12)


def _rfc_vector() -> dict[str, Any]:
    """The base-mode vector of our suite in the vectors of pyca/cryptography, which are those of RFC 9180."""
    content = files("cryptography_vectors").joinpath("HPKE", "test-vectors.json").read_bytes()
    ours = {"mode": 0, "kem_id": 0x20, "kdf_id": 1, "aead_id": 2}
    (vector,) = (each for each in json.loads(content) if ours.items() <= each.items())
    return dict(vector)


def test_our_suite_is_that_of_rfc_9180() -> None:
    """The published vector's key and nonce, used with no associated data, give a message that our suite opens.

    The published ciphertexts carry associated data, which the library's public interface does not take; they are
    checked to come from that very key and nonce.
    """
    vector = {name: bytes.fromhex(value) for name, value in _rfc_vector().items() if isinstance(value, str)}
    first = {name: bytes.fromhex(value) for name, value in _rfc_vector()["encryptions"][0].items()}
    private_key = X25519PrivateKey.from_private_bytes(vector["skRm"])
    aead = AESGCM(vector["key"])
    assert _key_and_nonce(private_key, vector["enc"], vector["info"]) == (vector["key"], vector["base_nonce"])
    assert aead.encrypt(vector["base_nonce"], first["pt"], first["aad"]) == first["ct"]
    message = vector["enc"] + aead.encrypt(vector["base_nonce"], first["pt"], b"")
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    assert suite.decrypt(message, private_key, vector["info"]) == first["pt"]


def test_our_blobs_open_by_the_text_of_rfc_9180() -> None:
    """What we wrap opens with HPKE written by hand, and what is written by hand unwraps."""
    blob = wrap_key(KEY, public_key=PRIVATE.public_key(), **PLACE)
    enc, ciphertext = blob[5:37], blob[37:]
    key, nonce = _key_and_nonce(PRIVATE, enc, info(**PLACE))
    assert AESGCM(key).decrypt(nonce, ciphertext, b"") == KEY
    by_hand = blob[:37] + AESGCM(key).encrypt(nonce, bytes(32), b"")
    assert unwrap_key(by_hand, private_key=PRIVATE, **PLACE) == bytes(32)


# --- Pinned bytes (tests/vectors/kms_local.json says where they come from).


@pytest.mark.parametrize("vector", VECTORS["wraps"], ids=lambda vector: vector["name"])
async def test_pinned_wraps_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vector: dict[str, Any]) -> None:
    """What any release wrapped opens in this one, with the pinned key files, clear and sealed."""
    path = tmp_path / "pinned.key"
    path.touch(mode=0o600)
    path.write_text(json.dumps(VECTORS["key_files"][vector["key_file"]]))
    monkeypatch.setenv("PINNED", VECTORS["passphrase"])
    sealed = "?passphrase-env=PINNED" if "passphrase" in VECTORS["key_files"][vector["key_file"]] else ""
    wrap = Wrap(key_version=vector["key_version"], blob=bytes.fromhex(vector["blob"]))
    async with open_local(f"local:{path}{sealed}") as kms:
        assert (await kms.unwrap(wrap, vector["context"])).hex() == vector["key"]


@pytest.mark.parametrize("vector", VECTORS["wraps"], ids=lambda vector: vector["name"])
def test_pinned_infos_are_encoded_alike(vector: dict[str, Any]) -> None:
    """The bytes that bind a wrap to its context never change."""
    version = int(vector["key_version"])
    key_id = VECTORS["key_files"][vector["key_file"]]["key_id"]
    assert info(key_id=key_id, version=version, context=vector["context"]).hex() == vector["info"]
    assert version_of(bytes.fromhex(vector["blob"])) == version


# --- Binding.


def test_the_info_reads_as_the_specification_says() -> None:
    """Each field follows its length in four bytes, big-endian; names are sorted."""
    assert info(key_id="id", version=7, context={"b": "2", "a": ""}) == (
        b"\0\0\0\x18tokenbroker/kms-local/v1\0\0\0\2id\0\0\0\x017\0\0\0\1a\0\0\0\0\0\0\0\1b\0\0\0\x012"
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
PLACES = st.tuples(TEXT, st.integers(1, 2**31 - 1), st.dictionaries(TEXT, TEXT, max_size=3))


@given(one=PLACES, two=PLACES)
@example(one=("id", 1, {"a": "bc"}), two=("id", 1, {"ab": "c"}))
@example(one=("id1", 1, {}), two=("id", 11, {}))
@example(one=("id", 1, {"a": "b", "c": "d"}), two=("id", 1, {"a": "b\0\0\0\1c\0\0\0\1d"}))
@example(one=("id", 1, {"\uffff": ""}), two=("id", 1, {"\U00010000": ""}))
def test_different_places_have_different_infos(
    one: tuple[str, int, dict[str, str]], two: tuple[str, int, dict[str, str]]
) -> None:
    """Two infos are equal only if key id, version and context are."""
    encoded = [info(key_id=key_id, version=version, context=context) for key_id, version, context in (one, two)]
    assert (encoded[0] == encoded[1]) == (one == two)


@pytest.mark.parametrize("change", [{"key_id": "1" * 32}, {"version": 2}, {"context": {**CONTEXT, "app": "x"}}])
def test_a_wrap_is_bound_to_key_id_version_and_context(change: dict[str, Any]) -> None:
    """The right private key does not open a wrap in another place."""
    blob = wrap_key(KEY, public_key=PRIVATE.public_key(), **PLACE)
    version = change.get("version", 1)
    moved = blob[:1] + version.to_bytes(4, "big") + blob[5:]
    assert unwrap_key(blob, private_key=PRIVATE, **PLACE) == KEY
    with pytest.raises(Corrupt):
        unwrap_key(moved, private_key=PRIVATE, **{**PLACE, **change})


@pytest.mark.parametrize("enc", [bytes(32), b"\1" + bytes(31), bytes.fromhex("ec" + "ff" * 30 + "7f"), b"\xff" * 32])
def test_points_of_small_order_are_corrupt(enc: bytes) -> None:
    """A blob whose ephemeral key would make the shared secret zero is refused, not an error of the library."""
    with pytest.raises(Corrupt):
        unwrap_key(b"\1\0\0\0\1" + enc + bytes(48), private_key=PRIVATE, **PLACE)


@given(blob=st.binary(min_size=BLOB_BYTES, max_size=BLOB_BYTES) | st.binary(max_size=100))
def test_any_other_blob_is_corrupt(blob: bytes) -> None:
    """Whatever bytes come, the answer is Corrupt."""
    with pytest.raises(Corrupt):
        unwrap_key(blob, private_key=PRIVATE, **PLACE)


def test_another_format_is_told() -> None:
    """A blob of a later format says so, instead of looking damaged."""
    with pytest.raises(Corrupt, match="format 2"):
        version_of(b"\2" + bytes(BLOB_BYTES - 1))
