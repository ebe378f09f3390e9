"""Key files: private, durable, refused when others can reach them."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from tokenbroker_client import BadKey, KeyExposed, WorkerKey
from tokenbroker_client.wire import unb64


def write_private(path: Path, data: bytes) -> Path:
    """Write a file that only its owner can read."""
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def test_a_key_survives_its_file(tmp_path: Path) -> None:
    """What was saved is loaded: the same key, worker and cluster."""
    key = WorkerKey.generate(worker="ci-1", cluster="tbc_x")
    key.save(tmp_path / "key")
    loaded = WorkerKey.load(tmp_path / "key")
    assert (loaded.public_key, loaded.worker, loaded.cluster) == (key.public_key, "ci-1", "tbc_x")
    Ed25519PublicKey.from_public_bytes(key.public_key).verify(loaded.sign(b"m"), b"m")


def test_the_public_key_is_what_operators_register() -> None:
    """32 bytes, base64url without padding."""
    key = WorkerKey.generate()
    assert unb64(key.public_key_b64, length=32) == key.public_key


def test_a_key_file_is_private(tmp_path: Path) -> None:
    """Whatever the umask, nobody but the owner can reach a saved key, and nothing else is left in the folder."""
    before = os.umask(0)
    try:
        WorkerKey.generate().save(tmp_path / "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_an_exposed_key_is_refused(tmp_path: Path, mode: int) -> None:
    """A key that others can reach may be theirs already; the error says how to mend the file."""
    path = tmp_path / "key"
    WorkerKey.generate().save(path)
    path.chmod(mode)
    with pytest.raises(KeyExposed, match=f"chmod 600 {path}"):
        WorkerKey.load(path)


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    """A key that a worker lives by is not lost to a second keygen."""
    path = write_private(tmp_path / "key", b"precious")
    with pytest.raises(BadKey, match="exists already"):
        WorkerKey.generate().save(path)
    assert path.read_bytes() == b"precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_replacing_is_asked_for(tmp_path: Path) -> None:
    """With `replace` the file holds the other key, and is still private."""
    path = tmp_path / "key"
    WorkerKey.generate().save(path)
    other = WorkerKey.generate()
    other.save(path, replace=True)
    assert WorkerKey.load(path).public_key == other.public_key


def encrypted() -> bytes:
    """Return a key file with a passphrase."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


def elliptic() -> bytes:
    """Return a key file of another kind."""
    return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no private key"),
        (b"nonsense", "no private key"),
        (b"\xff\xfe-----BEGIN PRIVATE KEY-----\n", "no private key"),
        (encrypted(), "encrypted"),
        (elliptic(), "another kind"),
        (b"x" * 20_000, "longer than"),
    ],
    ids=["empty", "nonsense", "torn", "encrypted", "elliptic", "long"],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    """Each wrong file gets its own message."""
    with pytest.raises(BadKey, match=words):
        WorkerKey.load(write_private(tmp_path / "key", data))


def test_a_bad_worker_name_in_the_file_is_refused(tmp_path: Path) -> None:
    """A name that no worker can have does not reach the handshake."""
    path = tmp_path / "key"
    WorkerKey.generate().save(path)
    write_private(path, b"Tokenbroker-Worker: A/B\n" + path.read_bytes())
    with pytest.raises(BadKey, match="A/B"):
        WorkerKey.load(path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    """The error names the file and the reason."""
    with pytest.raises(BadKey, match="No such file"):
        WorkerKey.load(tmp_path / "none")


def test_a_key_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """The error names the file and the reason."""
    with pytest.raises(BadKey, match="cannot be written"):
        WorkerKey.generate().save(tmp_path / "none" / "key")


def test_a_private_key_shows_nowhere(tmp_path: Path) -> None:
    """Neither repr nor pickle give the key away."""
    key = WorkerKey.generate(worker="ci-1")
    key.save(tmp_path / "key")
    secret = (tmp_path / "key").read_text("ascii").splitlines()[-2]
    assert secret not in repr(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_other_tools_read_the_file(tmp_path: Path) -> None:
    """The lines before the PEM block disturb no PEM reader."""
    WorkerKey.generate(worker="ci-1", cluster="tbc_x").save(tmp_path / "key")
    tool = ["openssl", "pkey", "-in", str(tmp_path / "key"), "-noout", "-text"]
    shown = subprocess.run(tool, capture_output=True, text=True, check=True, timeout=20)
    assert "ED25519" in shown.stdout
