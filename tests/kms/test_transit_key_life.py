"""What becomes of wraps when a transit key is rotated, restricted, deleted, or was the wrong one from the beginning."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kms.errors import BadKey, Corrupt, Denied, Disabled
from kms.port import Wrap
from kms.transit import open_transit
from kms.transit.adapter import ENDLESS, FINITE, NOT_ENCRYPTED, ROOT, UNREAD, UPSERTS

CONTEXT = {"keyring": "payments"}
KEY = bytes(range(32))


async def test_a_rotated_key_opens_what_it_wrapped_before(transit_key: Any) -> None:
    """New wraps name the new version; old ones open as before."""
    async with open_transit(transit_key.uri()) as kms:
        old = await kms.wrap(KEY, CONTEXT)
        transit_key.bao.rotate(transit_key.mount, transit_key.key)
        new = await kms.wrap(KEY, CONTEXT)
        assert (old.key_version, new.key_version) == ("1", "2")
        assert await kms.unwrap(old, CONTEXT) == await kms.unwrap(new, CONTEXT) == KEY
        assert (await kms.describe()).key_version == "2"


async def test_a_version_below_the_least_is_disabled(transit_key: Any) -> None:
    """min_decryption_version stops older wraps, and later ones go on."""
    async with open_transit(transit_key.uri()) as kms:
        old = await kms.wrap(KEY, CONTEXT)
        transit_key.bao.rotate(transit_key.mount, transit_key.key)
        new = await kms.wrap(KEY, CONTEXT)
        transit_key.bao.configure(transit_key.mount, transit_key.key, min_decryption_version=2)
        with pytest.raises(Disabled, match="min_decryption_version"):
            await kms.unwrap(old, CONTEXT)
        assert await kms.unwrap(new, CONTEXT) == KEY


async def test_a_version_that_is_not_there_yet_is_corrupt(transit_key: Any) -> None:
    """A blob that names a version which the key never had is not that key's."""
    async with open_transit(transit_key.uri()) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        later = Wrap(key_version="7", blob=wrap.blob.replace(b"vault:v1:", b"vault:v7:"))
        with pytest.raises(Corrupt):
            await kms.unwrap(later, CONTEXT)


async def test_another_keys_wrap_is_corrupt(transit_key: Any) -> None:
    """A blob of another key of the same mount does not open, and the message names the KMS key."""
    transit_key.bao.key(transit_key.mount, "other")
    body = {"plaintext": "QUJD"}
    answer = transit_key.bao.ask("POST", f"{transit_key.mount}/encrypt/other", body)
    async with open_transit(transit_key.uri()) as kms:
        with pytest.raises(Corrupt, match="another key or context") as caught:
            await kms.unwrap(Wrap(key_version="", blob=answer["data"]["ciphertext"].encode()), CONTEXT)
    assert caught.value.kms_key == kms.uri


async def test_a_wrap_of_something_else_than_a_key_is_corrupt(transit_key: Any) -> None:
    """What opens to other than 32 bytes is no data key, whoever encrypted it."""
    body = {"plaintext": "QUJD", "associated_data": "AAAAGnRva2VuYnJva2VyL2ttcy10cmFuc2l0L3Yx"}
    answer = transit_key.bao.ask("POST", f"{transit_key.mount}/encrypt/{transit_key.key}", body)
    async with open_transit(transit_key.uri()) as kms:
        with pytest.raises(Corrupt, match="32 bytes"):
            await kms.unwrap(Wrap(key_version="", blob=answer["data"]["ciphertext"].encode()), {})


async def test_a_deleted_key_is_disabled_and_not_made_again(transit_key: Any) -> None:
    """Neither wrapping nor unwrapping works, and the policy of the how-to makes no new key of the same name."""
    async with open_transit(transit_key.uri()) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        transit_key.bao.delete_key(transit_key.mount, transit_key.key)
        with pytest.raises(Disabled, match="deleted"):
            await kms.unwrap(wrap, CONTEXT)
        with pytest.raises(Denied):
            await kms.wrap(KEY, CONTEXT)
        with pytest.raises(Disabled):
            await kms.check()


async def test_a_soft_deleted_key_is_disabled_until_it_is_restored(bao: Any, transit_key: Any) -> None:
    """Soft deletion stops wraps and unwraps, also where the key is opened meanwhile; restoring brings them back."""
    path = f"{transit_key.mount}/keys/{transit_key.key}/soft-delete"
    uri = transit_key.uri()
    async with open_transit(uri) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        bao.ask("DELETE", path)
        for call in (kms.unwrap(wrap, CONTEXT), kms.wrap(KEY, CONTEXT), kms.check(), kms.describe()):
            with pytest.raises(Disabled):
                await call
        async with open_transit(uri) as opened_meanwhile:
            with pytest.raises(Disabled, match="soft-deleted"):
                await opened_meanwhile.wrap(KEY, CONTEXT)
        bao.ask("POST", f"{path}-restore", {})
        assert await kms.unwrap(wrap, CONTEXT) == KEY


@pytest.mark.parametrize("missing", ["/nowhere/tokens", "/nokey"])
async def test_a_key_or_mount_that_is_not_there_wraps_nothing(transit_key: Any, missing: str) -> None:
    """A wrong name is refused, and no key is made of it, though the token could."""
    uri = transit_key.uri(token_file=transit_key.file("root", transit_key.bao.root_token))
    path = f"/{transit_key.mount}/{transit_key.key}"
    wrong = missing if missing.count("/") == 2 else f"/{transit_key.mount}{missing}"
    async with open_transit(uri.replace(path, wrong)) as kms:
        for call in (kms.wrap(KEY, CONTEXT), kms.generate(CONTEXT), kms.check(), kms.describe()):
            with pytest.raises(Disabled, match="no such mount"):
                await call


@pytest.mark.parametrize(
    "properties",
    [
        {"type": "rsa-2048"},
        {"type": "ed25519"},
        {"type": "hmac", "key_size": 32},
        {"derived": True},
        {"derived": True, "convergent_encryption": True},
    ],
    ids=str,
)
async def test_a_key_of_the_wrong_kind_does_not_open(
    bao: Any, bao_servers: ModuleType, tmp_path: Path, properties: dict[str, object]
) -> None:
    """A key that binds no context, or shows equal keys, is refused before it wraps anything."""
    key = bao_servers.TransitKey(bao=bao, folder=tmp_path, **properties)
    with pytest.raises(BadKey, match="make") as caught:
        async with open_transit(key.uri()):
            pass
    assert caught.value.kms_key


async def test_a_key_of_the_wrong_kind_that_cannot_be_read_is_denied(
    bao: Any, bao_servers: ModuleType, tmp_path: Path
) -> None:
    """If the policy hides the key's type, the server's refusal to bind a context says it."""
    key = bao_servers.TransitKey(bao=bao, folder=tmp_path, type="rsa-2048")
    bao.policy(key.mount, {f"{key.mount}/encrypt/{key.key}": ["update"]})
    async with open_transit(key.uri()) as kms:
        with pytest.raises(Denied, match="binds no context"):
            await kms.wrap(KEY, CONTEXT)


@pytest.mark.parametrize("kind", ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"])
async def test_every_type_that_binds_a_context_serves(
    bao: Any, bao_servers: ModuleType, tmp_path: Path, kind: str
) -> None:
    """The types that the how-to names wrap and unwrap, and another context opens nothing."""
    key = bao_servers.TransitKey(bao=bao, folder=tmp_path, type=kind)
    async with open_transit(key.uri()) as kms:
        await kms.check()
        assert kind in (await kms.describe()).state
        wrap = await kms.wrap(KEY, CONTEXT)
        with pytest.raises(Corrupt):
            await kms.unwrap(wrap, {"keyring": "another"})


async def test_a_key_that_cannot_be_read_serves_with_a_warning(transit_key: Any) -> None:
    """Encrypt and decrypt are all that is needed; what could not be checked is said."""
    rules = {f"{transit_key.mount}/{verb}/{transit_key.key}": ["update"] for verb in ("encrypt", "decrypt")}
    transit_key.bao.policy(transit_key.mount, rules)
    async with open_transit(transit_key.uri()) as kms:
        await kms.check()
        description = await kms.describe()
    assert UNREAD in description.warnings
    assert description.key_version == ""


async def test_a_key_as_the_how_to_makes_it_has_only_the_warnings_of_a_test(transit_key: Any) -> None:
    """With an AppRole and the policy of the how-to nothing is left to warn of but http."""
    async with open_transit(transit_key.approle_uri()) as kms:
        description = await kms.describe()
    assert description.warnings == (NOT_ENCRYPTED,)
    assert (description.provider, description.hsm) == ("transit", False)
    assert "2.7" in description.state


async def test_flags_that_let_a_key_out_are_warned_of(bao: Any, bao_servers: ModuleType, tmp_path: Path) -> None:
    """Exportable, backed up in the clear, deletable: each is one line."""
    key = bao_servers.TransitKey(bao=bao, folder=tmp_path, exportable=True, allow_plaintext_backup=True)
    bao.configure(key.mount, key.key, deletion_allowed=True)
    async with open_transit(key.approle_uri()) as kms:
        warnings = " / ".join((await kms.describe()).warnings)
    assert all(word in warnings for word in ("exportable", "plaintext backups", "deletion_allowed"))


@pytest.mark.parametrize(
    ("properties", "warning"), [({"ttl": "1h", "renewable": False}, FINITE), ({"ttl": "1h", "renewable": True}, None)]
)
async def test_a_token_that_ends_and_cannot_be_renewed_is_warned_of(
    transit_key: Any, properties: dict[str, object], warning: str | None
) -> None:
    """A token that dies under the broker is said in time."""
    token = transit_key.bao.token(transit_key.mount, **properties)
    async with open_transit(transit_key.uri(token_file=transit_key.file("token", token))) as kms:
        warnings = (await kms.describe()).warnings
    assert (FINITE in warnings) == (warning is not None)
    assert ENDLESS not in warnings


async def test_a_root_token_is_warned_of(transit_key: Any) -> None:
    """A broker has no use for root."""
    uri = transit_key.uri(token_file=transit_key.file("root", transit_key.bao.root_token))
    async with open_transit(uri) as kms:
        assert ROOT in (await kms.describe()).warnings


async def test_a_token_without_end_is_warned_of(standin: Any, tmp_path: Path) -> None:
    """A token that never ends is as good to a thief as to the broker; a server that tells nothing else still serves."""
    standin.reply("auth/token/lookup-self", 200, {"data": {"ttl": 0, "expire_time": None, "policies": ["x"]}})
    async with open_transit(standin.uri(tmp_path)) as kms:
        description = await kms.describe()
    assert description.warnings == (NOT_ENCRYPTED, UNREAD, ENDLESS)
    assert "tells nothing of itself" in description.state


async def test_a_policy_that_makes_keys_is_warned_of(transit_key: Any) -> None:
    """With create on encrypt, a deleted key would come back as another one under the same name."""
    path = f"{transit_key.mount}/encrypt/{transit_key.key}"
    transit_key.bao.policy(transit_key.mount, {**transit_key.rules(), path: ["create", "update"]})
    async with open_transit(transit_key.uri()) as kms:
        assert UPSERTS in (await kms.describe()).warnings


async def test_a_key_in_a_namespace_serves(bao: Any, bao_servers: ModuleType, tmp_path: Path) -> None:
    """Login, key and renewal are those of the namespace; without it there is no such key."""
    key = bao_servers.TransitKey(bao=bao, folder=tmp_path, namespace=bao.namespace())
    uri = key.approle_uri()
    async with open_transit(uri) as kms:
        await kms.check()
        description = await kms.describe()
    assert description.warnings == (NOT_ENCRYPTED,)
    assert "2.7" in description.state
    async with open_transit(uri.replace(f"&namespace={key.namespace}", "")) as kms:
        with pytest.raises(Denied):
            await kms.check()


async def test_a_namespace_that_is_not_there_does_not_open(transit_key: Any) -> None:
    """A wrong namespace is no outage."""
    with pytest.raises(Denied, match="namespace"):
        async with open_transit(transit_key.uri() + "&namespace=nowhere") as kms:
            await kms.check()
