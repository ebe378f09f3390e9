"""Key files under a passphrase."""

from __future__ import annotations

import json
import os
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from kms.conformance import CONTEXT, KEY
from kms.errors import BadKey, Disabled, Unavailable
from kms.local import State, add_version, create_key_file, open_local, set_state
from kms.local.adapter import UNSEALED
from kms.local.passphrase import open_private_key, seal_private_key
from kms.port import Wrap

PASSPHRASE = b"correct horse battery staple"


@pytest.fixture
def sealed_file(tmp_path: Path) -> Path:
    """A key file under PASSPHRASE."""
    path = tmp_path / "sealed.key"
    create_key_file(path, PASSPHRASE)
    return path


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    """PASSPHRASE in a private file, with a line end."""
    path = tmp_path / "passphrase"
    path.touch(mode=0o600)
    path.write_bytes(PASSPHRASE + b"\n")
    return path


async def _refused(uri: str) -> str:
    with pytest.raises(BadKey) as caught:
        async with open_local(uri):
            pass
    return str(caught.value)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
async def test_the_right_passphrase_opens_from_a_file(sealed_file: Path, passphrase_file: Path, end: bytes) -> None:
    """A passphrase file may end its line, as editors do."""
    passphrase_file.write_bytes(PASSPHRASE + end)
    async with open_local(f"local:{sealed_file}?passphrase-file={passphrase_file}") as kms:
        assert await kms.unwrap(await kms.wrap(KEY, CONTEXT), CONTEXT) == KEY


async def test_the_right_passphrase_opens_from_the_environment(
    sealed_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable may carry the passphrase, and the key then does not warn that the file is the key."""
    monkeypatch.setenv("KMS_PASSPHRASE", PASSPHRASE.decode())
    async with open_local(f"local:{sealed_file}?passphrase-env=KMS_PASSPHRASE") as kms:
        assert await kms.unwrap(await kms.wrap(KEY, CONTEXT), CONTEXT) == KEY
        assert UNSEALED not in (await kms.describe()).warnings


@pytest.mark.parametrize("wrong", [PASSPHRASE + b"\n\n", PASSPHRASE[:-1], PASSPHRASE.upper(), b" " + PASSPHRASE])
async def test_a_wrong_passphrase_is_a_bad_key(sealed_file: Path, passphrase_file: Path, wrong: bytes) -> None:
    """Close is not enough, and the error shows no passphrase."""
    passphrase_file.write_bytes(wrong)
    message = await _refused(f"local:{sealed_file}?passphrase-file={passphrase_file}")
    assert "does not open version 1" in message
    assert "horse" not in message.lower()


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 1025])
async def test_a_passphrase_out_of_bounds_is_a_bad_key(
    sealed_file: Path, passphrase_file: Path, content: bytes
) -> None:
    """Empty and overlong passphrases are refused where they are read, and where files are made."""
    passphrase_file.write_bytes(content)
    assert "1 to 1024 bytes" in await _refused(f"local:{sealed_file}?passphrase-file={passphrase_file}")
    with pytest.raises(BadKey, match="1 to 1024 bytes"):
        create_key_file(sealed_file.with_name("more.key"), content.strip())


async def test_a_missing_passphrase_says_how_to_give_one(sealed_file: Path) -> None:
    """No option, an unset variable and a missing file each get their own message."""
    assert "passphrase-file=PATH" in await _refused(f"local:{sealed_file}")
    assert "NOT_SET_ANYWHERE, which is to hold" in await _refused(
        f"local:{sealed_file}?passphrase-env=NOT_SET_ANYWHERE"
    )
    assert "No such file" in await _refused(f"local:{sealed_file}?passphrase-file={sealed_file}.missing")


async def test_a_passphrase_file_open_to_others_is_refused(sealed_file: Path, passphrase_file: Path) -> None:
    """A passphrase is guarded like the key that it seals."""
    passphrase_file.chmod(0o644)
    assert "chmod 600" in await _refused(f"local:{sealed_file}?passphrase-file={passphrase_file}")


async def test_a_passphrase_for_a_clear_file_is_refused(key_file: Path, passphrase_file: Path) -> None:
    """Whoever configures a passphrase must not start with a file that needs none."""
    assert "not sealed" in await _refused(f"local:{key_file}?passphrase-file={passphrase_file}")


async def test_a_sealed_file_holds_no_private_key(sealed_file: Path, passphrase_file: Path) -> None:
    """Neither the private key nor the passphrase is in the file; only the passphrase gets the key out."""
    tree = json.loads(sealed_file.read_text())
    sealed = b64decode(tree["versions"][0]["sealed_private_key"])
    public = b64decode(tree["versions"][0]["public_key"])
    assert "private_key" not in tree["versions"][0]
    windows = [sealed[start : start + 32] for start in range(len(sealed) - 31)]
    assert all(X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw() != public for raw in windows)
    assert PASSPHRASE not in sealed_file.read_bytes()


def test_a_sealed_private_key_opens_only_in_its_place() -> None:
    """Moving a sealed key to another version, file or public key, or changing it, is noticed."""
    place: dict[str, Any] = {"sealing_key": bytes(32), "key_id": "0" * 32, "version": 1, "public_key": b"p" * 32}
    sealed = seal_private_key(KEY, **place)
    assert open_private_key(sealed, **place) == KEY
    others: list[dict[str, Any]] = [
        {"sealing_key": b"\1" * 32},
        {"key_id": "1" * 32},
        {"version": 2},
        {"public_key": b"q" * 32},
    ]
    for other in others:
        with pytest.raises(BadKey):
            open_private_key(sealed, **{**place, **other})
    for index in range(len(sealed)):
        changed = sealed[:index] + bytes([sealed[index] ^ 1]) + sealed[index + 1 :]
        with pytest.raises(BadKey):
            open_private_key(changed, **place)


async def test_a_version_is_added_under_the_same_passphrase(sealed_file: Path, passphrase_file: Path) -> None:
    """After adding a version, one passphrase opens old and new wraps."""
    uri = f"local:{sealed_file}?passphrase-file={passphrase_file}"
    async with open_local(uri) as kms:
        old = await kms.wrap(KEY, CONTEXT)
    assert add_version(sealed_file, PASSPHRASE) == 2
    async with open_local(uri) as kms:
        assert (await kms.wrap(KEY, CONTEXT)).key_version == "2"
        assert await kms.unwrap(old, CONTEXT) == KEY


def test_a_version_under_another_passphrase_is_refused(sealed_file: Path, key_file: Path) -> None:
    """A mistyped, missing or needless passphrase leaves the file as it was."""
    before = sealed_file.read_bytes()
    for passphrase, message in ((b"mistyped", "does not open"), (None, "needs its passphrase"), (b"", "1 to 1024")):
        with pytest.raises(BadKey, match=message):
            add_version(sealed_file, passphrase)
    assert sealed_file.read_bytes() == before
    with pytest.raises(BadKey, match="the key file has none"):
        add_version(key_file, PASSPHRASE)


async def test_disabling_a_version_of_a_running_key_needs_no_passphrase(
    sealed_file: Path, passphrase_file: Path
) -> None:
    """Stopping a key works although its passphrase is no longer at hand."""
    async with open_local(f"local:{sealed_file}?passphrase-file={passphrase_file}") as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        passphrase_file.unlink()
        assert await kms.unwrap(wrap, CONTEXT) == KEY
        set_state(sealed_file, 1, State.DISABLED)
        with pytest.raises(Disabled):
            await kms.unwrap(wrap, CONTEXT)
        set_state(sealed_file, 1, State.ENABLED)
        assert await kms.unwrap(wrap, CONTEXT) == KEY


async def test_a_version_added_to_a_running_key_needs_the_passphrase(sealed_file: Path, passphrase_file: Path) -> None:
    """While the passphrase is away, a file with an unknown version is an outage; with it, the version serves."""
    async with open_local(f"local:{sealed_file}?passphrase-file={passphrase_file}") as kms:
        passphrase_file.rename(passphrase_file.with_name("away"))
        add_version(sealed_file, PASSPHRASE)
        with pytest.raises(Unavailable):
            await kms.wrap(KEY, CONTEXT)
        passphrase_file.with_name("away").rename(passphrase_file)
        wrap = await kms.wrap(KEY, CONTEXT)
        assert wrap.key_version == "2"


async def test_a_running_key_whose_passphrase_turns_wrong_recovers(sealed_file: Path, passphrase_file: Path) -> None:
    """The failure is said again for the same files, and forgotten when the passphrase file changes."""
    async with open_local(f"local:{sealed_file}?passphrase-file={passphrase_file}") as kms:
        passphrase_file.write_bytes(b"wrong")
        add_version(sealed_file, PASSPHRASE)
        for _ in range(2):
            with pytest.raises(BadKey, match="does not open version 2"):
                await kms.wrap(KEY, CONTEXT)
        passphrase_file.write_bytes(PASSPHRASE)
        assert isinstance(await kms.wrap(KEY, CONTEXT), Wrap)


def test_a_passphrase_need_not_be_text(tmp_path: Path) -> None:
    """Any bytes are a passphrase."""
    path = tmp_path / "bytes.key"
    create_key_file(path, os.urandom(64) + b"\xff\0")
    assert path.exists()
