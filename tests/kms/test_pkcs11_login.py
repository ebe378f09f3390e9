"""Libraries, tokens and PINs that are wrong at open: each is told apart, and no PIN is tried until it is locked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pkcs11
import pytest
from pkcs11 import TokenFlag

from kms.errors import BadKey, Denied, KmsError, Unavailable
from kms.pkcs11 import open_pkcs11
from kms.pkcs11.answers import translated
from kms.pkcs11.module import LISTED_MAX, refuse_risky_login


@pytest.fixture
def token(softhsm: Any) -> Any:
    """A token with one key."""
    made = softhsm.token()
    softhsm.aes(made, "key")
    return made


async def opening(uri: str) -> None:
    """Open and close the key at `uri`."""
    async with open_pkcs11(uri):
        pass


def private(path: Path, content: str) -> Path:
    """A file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(content)
    return path


async def test_a_wrong_pin_is_bad_key_and_not_repeated(softhsm: Any, token: Any, tmp_path: Path) -> None:
    """A wrong PIN is BadKey, which names the key URI and never the PIN."""
    uri = softhsm.uri(token, "key", pin_file=private(tmp_path / "pin", "992342"))
    with pytest.raises(BadKey, match="refuses the PIN") as refused:
        await opening(uri)
    assert refused.value.kms_key == uri
    assert "992342" not in f"{refused.value!s} {refused.value!r} {refused.value.__cause__!r}"


async def test_a_refused_pin_is_not_tried_again_before_its_file_changes(
    softhsm: Any, token: Any, tmp_path: Path
) -> None:
    """Tokens lock themselves after a few wrong PINs: a second open asks the token nothing, until the PIN is new."""
    pin_file = private(tmp_path / "pin", "992342")
    uri = softhsm.uri(token, "key", pin_file=pin_file)
    with pytest.raises(BadKey, match="refuses the PIN"):
        await opening(uri)
    with pytest.raises(BadKey, match="not tried again until that file changes"):
        await opening(uri)
    pin_file.write_text(token.pin_file.read_text())
    await opening(uri)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (TokenFlag.USER_PIN_LOCKED, "is locked"),
        (TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.TOKEN_INITIALIZED, "one more wrong PIN would lock"),
    ],
)
def test_a_token_that_a_wrong_pin_would_lock_is_left_alone(flags: TokenFlag, said: str) -> None:
    """A locked token, and one with a single try left, is Denied before the PIN is sent (SoftHSM never locks)."""
    with pytest.raises(Denied, match=said):
        refuse_risky_login(flags)


def test_a_count_that_is_low_forbids_no_login() -> None:
    """One wrong PIN by somebody else does not keep the broker out."""
    refuse_risky_login(TokenFlag.USER_PIN_COUNT_LOW | TokenFlag.TOKEN_INITIALIZED)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (pkcs11.PinLocked(), Denied),
        (pkcs11.PinExpired(), Denied),
        (pkcs11.PinIncorrect(), BadKey),
        (pkcs11.UserPinNotInitialized(), BadKey),
        (pkcs11.SessionCount(), Unavailable),
        (pkcs11.DeviceMemory(), Unavailable),
        (pkcs11.TokenNotPresent(), Unavailable),
        (pkcs11.FunctionRejected(), Denied),
        (pkcs11.GeneralError(), Denied),
        (pkcs11.PKCS11Error("Unmapped error code 2147483649"), Denied),
    ],
)
def test_answers_that_softhsm_never_gives_are_told_apart(error: pkcs11.PKCS11Error, kind: type[KmsError]) -> None:
    """A locked PIN, and whatever nobody understands, is Denied; "no room" and "not there" are Unavailable."""
    assert type(translated(error)) is kind


async def test_a_pin_file_that_others_may_read_is_refused(softhsm: Any, token: Any, tmp_path: Path) -> None:
    """A PIN file is closed to group and others, or BadKey names the mode to set."""
    pin_file = private(tmp_path / "pin", token.pin_file.read_text())
    pin_file.chmod(0o640)
    with pytest.raises(BadKey, match="chmod 600"):
        await opening(softhsm.uri(token, "key", pin_file=pin_file))


@pytest.mark.parametrize(
    ("content", "said"), [("\n", "and that in"), ("1" * 300, "larger|1 to 256"), ("\udcff", "UTF-8")]
)
async def test_a_file_that_holds_no_pin_is_refused(
    softhsm: Any, token: Any, tmp_path: Path, content: str, said: str
) -> None:
    """An empty, overlong or undecodable PIN is BadKey, and the token is not asked."""
    pin_file = private(tmp_path / "pin", "")
    pin_file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(BadKey, match=said):
        await opening(softhsm.uri(token, "key", pin_file=pin_file))


async def test_a_missing_pin_file_is_bad_key(softhsm: Any, token: Any, tmp_path: Path) -> None:
    """At open a PIN file that is not there is a mistake of the configuration."""
    with pytest.raises(BadKey, match="cannot be read"):
        await opening(softhsm.uri(token, "key", pin_file=tmp_path / "absent"))


async def test_a_second_key_of_a_token_needs_its_own_pin_file(softhsm: Any, token: Any, tmp_path: Path) -> None:
    """Though the process is logged in already, a key whose PIN file is missing does not open."""
    async with open_pkcs11(softhsm.uri(token, "key")):
        with pytest.raises(BadKey, match="cannot be read"):
            await opening(softhsm.uri(token, "key", pin_file=tmp_path / "absent"))


@pytest.mark.parametrize("path", ["/nonexistent/hsm.so", "/etc/passwd", "{zlib}"])
async def test_a_file_that_is_no_pkcs11_library_is_bad_key(token: Any, path: str) -> None:
    """A path with nothing, no library, or another library there is BadKey that names it."""
    zlib = next(Path("/").glob("usr/lib/*/libz.so*"), Path("/etc/hosts"))
    uri = f"pkcs11:token=t;object=o?module-path={path.format(zlib=zlib)}&pin-source=file:{token.pin_file}"
    with pytest.raises(BadKey, match="not a PKCS#11 library that can be loaded here"):
        await opening(uri)


async def test_an_absent_token_is_unavailable_and_lists_what_is_there(softhsm: Any, token: Any) -> None:
    """An HSM that is away cannot be told from a typing error, so the tokens that answer are listed."""
    uri = softhsm.uri(token, "key").replace(f"serial={token.serial}", "token=another")
    with pytest.raises(Unavailable, match="no token matches") as refused:
        await opening(uri)
    said = str(refused.value)
    there = {folder.name.replace("-", "")[-16:] for folder in (softhsm.folder / "tokens").iterdir()}
    listed = {serial for serial in there if f"(serial '{serial}')" in said}
    assert len(listed) == min(len(there), LISTED_MAX)
    assert ("more" in said) == (len(there) > LISTED_MAX)


async def test_a_list_of_tokens_is_bounded(softhsm: Any, token: Any) -> None:
    """However many tokens there are, a message lists a few and says how many more there are."""
    for _ in range(LISTED_MAX + 1):
        softhsm.token()
    uri = softhsm.uri(token, "key").replace(f"serial={token.serial}", "token=another")
    with pytest.raises(Unavailable, match=r"and \d+ more") as refused:
        await opening(uri)
    assert str(refused.value).count("(serial ") == LISTED_MAX


async def test_two_tokens_of_one_label_are_told_apart_by_serial(softhsm: Any) -> None:
    """A label that two tokens share is BadKey and lists their serial numbers."""
    one, two = softhsm.token("twins"), softhsm.token("twins")
    uri = softhsm.uri(one, "key").replace(f"serial={one.serial}", "token=twins")
    with pytest.raises(BadKey, match="several tokens match") as refused:
        await opening(uri)
    assert one.serial in str(refused.value)
    assert two.serial in str(refused.value)
