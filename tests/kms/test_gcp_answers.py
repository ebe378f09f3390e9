"""What each answer of Google Cloud KMS becomes: one error of the port, which names the key and never its material."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import google_crc32c
import grpc
import pytest

from kms.errors import BadKey, Corrupt, Denied, Disabled, KmsError, Unavailable
from kms.gcp import ANSWER_BYTES_MAX, open_gcp
from kms.port import Caller, Kms, Wrap

KEY = bytes(range(32))
CONTEXT = {"keyring": "answers"}
Status = grpc.StatusCode


@pytest.fixture
async def kms(gcp: Any) -> AsyncIterator[Kms]:
    """A key at the stand-in."""
    async with open_gcp(gcp.uri(gcp.key())) as opened:
        yield opened


async def refused(call: Awaitable[object], kind: type[KmsError], kms: Kms) -> KmsError:
    """The error of exactly this class that `call` raises; it names the key."""
    with pytest.raises(KmsError) as caught:
        await call
    assert type(caught.value) is kind, caught.value
    assert caught.value.kms_key == kms.uri
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.UNAVAILABLE, Unavailable),
        (Status.DEADLINE_EXCEEDED, Unavailable),
        (Status.RESOURCE_EXHAUSTED, Unavailable),
        (Status.ABORTED, Unavailable),
        (Status.INTERNAL, Unavailable),
        (Status.PERMISSION_DENIED, Denied),
        (Status.UNAUTHENTICATED, Denied),
        (Status.NOT_FOUND, Disabled),
        (Status.FAILED_PRECONDITION, Disabled),
        (Status.UNKNOWN, Denied),
        (Status.CANCELLED, Denied),
        (Status.DATA_LOSS, Denied),
        (Status.UNIMPLEMENTED, Denied),
        (Status.OUT_OF_RANGE, Denied),
        (Status.ALREADY_EXISTS, Denied),
    ],
)
async def test_each_status_has_one_meaning(gcp: Any, kms: Kms, status: grpc.StatusCode, kind: type[KmsError]) -> None:
    """Only what says "later" is Unavailable; the unknown is Denied. Google's own text is not repeated."""
    wrap = await kms.wrap(KEY, CONTEXT)
    for method in ("Encrypt", "Decrypt"):
        gcp.refuse[method] = (status, "canary of the server")
    for call in (kms.wrap(KEY, CONTEXT), kms.unwrap(wrap, CONTEXT), kms.generate(CONTEXT), kms.check()):
        assert "canary" not in str(await refused(call, kind, kms))


async def test_what_is_refused_is_asked_once(gcp: Any, kms: Kms) -> None:
    """Neither the SDK nor the channel tries again: the broker does, at its own pace."""
    gcp.refuse["Encrypt"] = (Status.UNAVAILABLE, "busy")
    await refused(kms.wrap(KEY, CONTEXT), Unavailable, kms)
    assert gcp.calls.count("Encrypt") == 1


async def test_a_request_that_google_calls_wrong_is_no_damaged_blob(gcp: Any, kms: Kms) -> None:
    """When unwrapping, INVALID_ARGUMENT is Corrupt only if decrypting failed; anything else is Denied."""
    wrap = await kms.wrap(KEY, CONTEXT)
    gcp.refuse["Decrypt"] = (Status.INVALID_ARGUMENT, "Invalid resource name.")
    await refused(kms.unwrap(wrap, CONTEXT), Denied, kms)


async def test_a_request_changed_on_its_way_may_be_sent_again(gcp: Any, kms: Kms) -> None:
    """Google compares the checksums that we send: of key, blob and context. A difference is Unavailable."""
    wrap = await kms.wrap(KEY, CONTEXT)

    def damaging(field: str) -> Callable[[Any], None]:
        return lambda request: setattr(request, field, getattr(request, field) + b"!")

    for field in ("plaintext", "additional_authenticated_data"):
        gcp.damage["Encrypt"] = damaging(field)
        await refused(kms.wrap(KEY, CONTEXT), Unavailable, kms)
    for field in ("ciphertext", "additional_authenticated_data"):
        gcp.damage["Decrypt"] = damaging(field)
        await refused(kms.unwrap(wrap, CONTEXT), Unavailable, kms)


async def test_checksums_that_got_lost_are_noticed(gcp: Any, kms: Kms) -> None:
    """An answer that does not say that it compared what we sent is not used."""
    for field in ("plaintext_crc32c", "additional_authenticated_data_crc32c"):
        gcp.damage["Encrypt"] = lambda request, field=field: setattr(request, field, None)
        await refused(kms.wrap(KEY, CONTEXT), Unavailable, kms)


def _set(**fields: Any) -> Callable[[Any], Any]:
    def change(answer: Any) -> Any:
        for name, value in fields.items():
            setattr(answer, name, value)
        return answer

    return change


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_set(ciphertext_crc32c=1), Unavailable),
        (_set(ciphertext_crc32c=None), Unavailable),
        (_set(ciphertext=b"other"), Unavailable),
        (_set(ciphertext=b"", ciphertext_crc32c=0), Corrupt),
        (_set(ciphertext=bytes(4097), ciphertext_crc32c=google_crc32c.value(bytes(4097))), Corrupt),
        (_set(name=""), Corrupt),
        (_set(name="projects/p/locations/l/keyRings/r/cryptoKeys/other/cryptoKeyVersions/1"), Corrupt),
        (lambda answer: _set(name=answer.name + "x")(answer), Corrupt),
        (lambda answer: _set(name="x" + answer.name)(answer), Corrupt),
        (lambda answer: b"", Unavailable),
    ],
    ids=["sum", "no sum", "changed", "empty", "long", "nameless", "other key", "version", "prefix", "nothing"],
)
async def test_a_wrong_wrap_is_not_used(gcp: Any, kms: Kms, change: Callable[[Any], Any], kind: type[KmsError]) -> None:
    """Damage on the way is Unavailable; a whole answer that is no wrap by this key is Corrupt."""
    gcp.change["Encrypt"] = change
    await refused(kms.wrap(KEY, CONTEXT), kind, kms)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_set(plaintext_crc32c=1), Unavailable),
        (_set(plaintext_crc32c=None), Unavailable),
        (_set(plaintext=bytes(32)), Unavailable),
        (_set(plaintext=b"", plaintext_crc32c=0), Corrupt),
        (_set(plaintext=KEY[:31], plaintext_crc32c=google_crc32c.value(KEY[:31])), Corrupt),
        (_set(plaintext=KEY + b"!", plaintext_crc32c=google_crc32c.value(KEY + b"!")), Corrupt),
    ],
    ids=["sum", "no sum", "changed", "empty", "short", "long"],
)
async def test_a_wrong_key_is_not_used(gcp: Any, kms: Kms, change: Callable[[Any], Any], kind: type[KmsError]) -> None:
    """Damage on the way is Unavailable; another size than a key's is Corrupt. Neither shows the key."""
    wrap = await kms.wrap(KEY, CONTEXT)
    gcp.change["Decrypt"] = change
    error = await refused(kms.unwrap(wrap, CONTEXT), kind, kms)
    assert repr(KEY[:31])[2:-1] not in str(error)


@pytest.mark.parametrize("method", ["Encrypt", "Decrypt"])
async def test_an_answer_that_is_no_message_is_typed(gcp: Any, kms: Kms, method: str) -> None:
    """Bytes that are not protobuf are Corrupt, and the next answer is read again."""
    wrap = await kms.wrap(KEY, CONTEXT)
    gcp.change[method] = lambda answer: b"\xff" * 64
    await refused(kms.wrap(KEY, CONTEXT) if method == "Encrypt" else kms.unwrap(wrap, CONTEXT), Corrupt, kms)
    gcp.change.clear()
    assert await kms.unwrap(wrap, CONTEXT) == KEY


@pytest.mark.parametrize("method", ["Encrypt", "Decrypt"])
async def test_an_oversized_answer_is_cut_off(gcp: Any, kms: Kms, method: str) -> None:
    """More than the bound is Corrupt and no quota; gRPC drops it before it is a message."""
    wrap = await kms.wrap(KEY, CONTEXT)
    gcp.change[method] = lambda answer: os.urandom(ANSWER_BYTES_MAX + 1)
    call = kms.wrap(KEY, CONTEXT) if method == "Encrypt" else kms.unwrap(wrap, CONTEXT)
    assert str(ANSWER_BYTES_MAX) in str(await refused(call, Corrupt, kms))


async def test_another_keys_blob_is_corrupt(gcp: Any, kms: Kms) -> None:
    """Google says that the name does not fit; the message names the key that was asked."""
    async with open_gcp(gcp.uri(gcp.key("other"))) as other:
        wrap = await other.wrap(KEY, CONTEXT)
    await refused(kms.unwrap(wrap, CONTEXT), Corrupt, kms)


@pytest.mark.parametrize("state", ["DISABLED", "DESTROY_SCHEDULED", "DESTROYED"])
async def test_a_version_that_is_not_enabled_is_disabled(gcp: Any, gcp_standin: Any, kms: Kms, state: str) -> None:
    """It neither wraps nor unwraps, and does both again once it is enabled."""
    wrap = await kms.wrap(KEY, CONTEXT)
    version = next(iter(gcp.keys.values())).versions[1]
    version.state = gcp_standin.State[state]
    await refused(kms.wrap(KEY, CONTEXT), Disabled, kms)
    await refused(kms.unwrap(wrap, CONTEXT), Disabled, kms)
    version.state = gcp_standin.State.ENABLED
    assert await kms.unwrap(wrap, CONTEXT) == KEY


async def test_a_rotated_key_opens_what_its_older_version_wrapped(gcp: Any, gcp_standin: Any, kms: Kms) -> None:
    """The wrap names the version that made it; the new primary makes the next one."""
    wrap = await kms.wrap(KEY, CONTEXT)
    key = next(iter(gcp.keys.values()))
    key.versions[2], key.primary = gcp_standin.Version(), 2
    assert (wrap.key_version, (await kms.wrap(KEY, CONTEXT)).key_version) == ("1", "2")
    assert await kms.unwrap(wrap, CONTEXT) == KEY


async def test_a_worker_is_denied_before_google_is_asked(gcp: Any, kms: Kms) -> None:
    """Google sees the broker's account only, so that a keyring which lets the KMS decide gets a clear no."""
    wrap = await kms.wrap(KEY, CONTEXT)
    call = kms.unwrap(wrap, CONTEXT, Caller(worker="ci-1", groups=("ci",)))
    assert 'authorize = "broker"' in str(await refused(call, Denied, kms))
    assert "Decrypt" not in gcp.calls


async def test_nothing_else_that_the_key_encrypted_is_taken_for_a_wrap(gcp: Any, kms: Kms) -> None:
    """32 bytes that somebody encrypted with the same key, without our label, do not open."""
    names = next(iter(gcp.keys.values()))
    answers: list[Any] = []
    gcp.damage["Encrypt"] = lambda request: (
        setattr(request, "additional_authenticated_data", b""),
        setattr(request, "additional_authenticated_data_crc32c", google_crc32c.value(b"")),
    )
    gcp.change["Encrypt"] = lambda answer: answers.append(answer) or answer
    foreign = await kms.wrap(KEY, {})
    assert names.name in answers[0].name
    await refused(kms.unwrap(Wrap(key_version="1", blob=foreign.blob), {}), Corrupt, kms)


async def test_a_key_for_something_else_is_a_bad_key(gcp: Any, gcp_standin: Any) -> None:
    """Purpose and algorithm are looked at when the key is opened; the message says what to create."""
    purpose, algorithm = gcp_standin.Purpose, gcp_standin.Algorithm
    for fields in (
        {"purpose": purpose.ASYMMETRIC_DECRYPT, "algorithm": algorithm.RSA_DECRYPT_OAEP_2048_SHA256},
        {"purpose": purpose.RAW_ENCRYPT_DECRYPT, "algorithm": algorithm.AES_256_GCM},
        {"purpose": purpose.MAC, "algorithm": algorithm.HMAC_SHA256},
        {"algorithm": algorithm.AES_256_GCM},
    ):
        uri = gcp.uri(gcp.key("wrong", **fields))
        with pytest.raises(BadKey, match="--purpose=encryption") as caught:
            async with open_gcp(uri):
                pass
        assert caught.value.kms_key == uri


async def test_a_wrong_key_that_may_not_be_looked_at_is_a_bad_key_once_it_wraps(gcp: Any, gcp_standin: Any) -> None:
    """Without the right to look, its first use tells."""
    gcp.refuse["GetCryptoKey"] = (Status.PERMISSION_DENIED, "no")
    async with open_gcp(gcp.uri(gcp.key(purpose=gcp_standin.Purpose.MAC))) as kms:
        await refused(kms.check(), BadKey, kms)


async def test_a_key_that_google_knows_by_another_name_is_a_bad_key(gcp: Any) -> None:
    """Else each wrap would look like another key's."""
    gcp.change["GetCryptoKey"] = _set(name="projects/1/locations/l/keyRings/r/cryptoKeys/k")
    with pytest.raises(BadKey, match="another name"):
        async with open_gcp(gcp.uri(gcp.key())):
            pass


@pytest.mark.parametrize("status", [Status.UNAVAILABLE, Status.PERMISSION_DENIED, Status.NOT_FOUND])
async def test_a_key_that_does_not_answer_opens_and_says_so_in_each_call(gcp: Any, status: grpc.StatusCode) -> None:
    """A broker with a second key starts while this one is down, and uses it once it is back."""
    for method in ("GetCryptoKey", "Encrypt"):
        gcp.refuse[method] = (status, "no")
    async with open_gcp(gcp.uri(gcp.key())) as kms:
        with pytest.raises((Unavailable, Denied)):
            await kms.check()
        gcp.refuse.clear()
        await kms.check()


async def test_nonsense_at_start_keeps_no_other_key_from_serving(gcp: Any) -> None:
    """An oversized description is not believed; the key opens, and is used once it makes sense."""
    gcp.change["GetCryptoKey"] = lambda answer: bytes(ANSWER_BYTES_MAX + 1)
    async with open_gcp(gcp.uri(gcp.key())) as kms:
        await refused(kms.describe(), Corrupt, kms)
        gcp.change.clear()
        assert (await kms.describe()).state.startswith("enabled")
