"""Which keys and versions of a vault are used, and which are refused, with the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kms.azure import open_azure
from kms.conformance import CONTEXT, KEY
from kms.errors import BadKey, Corrupt, Denied, Disabled
from kms.port import Caller, Wrap

DAY_S = 24 * 3600


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"kty": "EC-HSM"}, "make one of type RSA"),
        ({"kty": "oct"}, "make one of type RSA"),
        ({"bits": 1024}, "1024 bits; make one of 2048"),
        ({"key_ops": ("encrypt", "decrypt")}, "does not permit unwrapKey and wrapKey; add"),
        ({"key_ops": ("wrapKey",)}, "does not permit unwrapKey; add"),
    ],
)
async def test_an_unfit_key_does_not_open(azure_vault: Any, made: dict[str, Any], says: str) -> None:
    """Wrong type or size and missing operations are said at open, naming key and remedy."""
    azure_vault.add("unfit", 1, **made)
    uri = azure_vault.uri("unfit")
    with pytest.raises(BadKey, match=says) as caught:
        async with open_azure(uri):
            pass
    assert caught.value.kms_key == uri


@pytest.mark.parametrize(
    ("made", "state"),
    [({"enabled": False}, "disabled"), ({"nbf": 2**40}, "not yet valid"), ({"exp": 1}, "expired")],
)
async def test_a_key_that_may_not_wrap_now_opens_and_says_so(
    azure_vault: Any, made: dict[str, Any], state: str
) -> None:
    """Disabled, or out of its dates, keeps no broker from starting: wraps are refused with the remedy."""
    azure_vault.add("later", 1, **made)
    async with open_azure(azure_vault.uri("later")) as kms:
        with pytest.raises(Disabled, match=f"is {state}; enable it, change its dates, or make a new version") as caught:
            await kms.wrap(KEY, CONTEXT)
        described = await kms.describe()
    assert caught.value.kms_key == azure_vault.uri("later")
    assert described.state == state
    assert described.warnings == (f"the key is {state}: it wraps no new data key",)


async def test_the_newest_version_wraps_and_the_old_one_still_opens(azure_vault: Any) -> None:
    """A rotation in the vault takes effect with the next wrap, and what older versions wrapped opens."""
    first = azure_vault.add("turned", 1)
    async with open_azure(azure_vault.uri("turned")) as kms:
        old = await kms.wrap(KEY, CONTEXT)
        second = azure_vault.add("turned", 2, bits=3072)
        new = await kms.wrap(KEY, CONTEXT)
        assert (old.key_version, new.key_version) == (first.version, second.version)
        assert (len(old.blob), len(new.blob)) == (256, 384)
        assert await kms.unwrap(old, CONTEXT) == await kms.unwrap(new, CONTEXT) == KEY


async def test_a_key_may_change_its_type_with_a_version(azure_vault: Any) -> None:
    """Each blob is opened by the algorithm that made it, whatever type the newest version has."""
    azure_vault.add("mixed", 1, kty="RSA-HSM")
    async with open_azure(azure_vault.uri("mixed")) as kms:
        by_rsa = await kms.wrap(KEY, CONTEXT)
        azure_vault.add("mixed", 2, kty="oct-HSM")
        by_aes = await kms.wrap(KEY, CONTEXT)
        assert len(by_aes.blob) == 88
        assert await kms.unwrap(by_rsa, CONTEXT) == await kms.unwrap(by_aes, CONTEXT) == KEY


@pytest.mark.parametrize("unfit", [{"enabled": False}, {"exp": 1}, {"nbf": 2**40}])
async def test_an_unusable_newest_version_is_passed_over(azure_vault: Any, unfit: dict[str, Any]) -> None:
    """The newest version that may wrap does, however many pages of versions the vault lists."""
    azure_vault.page = 2
    made = [azure_vault.add("many", 1) for _ in range(5)]
    azure_vault.add("many", 2, **unfit)
    async with open_azure(azure_vault.uri("many")) as kms:
        assert (await kms.wrap(KEY, CONTEXT)).key_version == made[-1].version
        assert (await kms.describe()).key_version == made[-1].version
    assert [each for each in azure_vault.asked if each.endswith("/versions")]


async def test_the_vault_is_never_asked_for_versions_without_end(azure_vault: Any) -> None:
    """A list of versions that never ends is left after 20 pages."""
    azure_vault.page = 1
    for _ in range(30):
        azure_vault.add("endless", 1, enabled=False)
    async with open_azure(azure_vault.uri("endless")):
        pass
    assert azure_vault.asked.count("GET /keys/endless/versions") == 20


async def test_a_version_in_the_uri_wraps_and_others_open(azure_vault: Any) -> None:
    """A named version wraps, though there is a newer one, and what the newer one wrapped opens."""
    first = azure_vault.add("pinned", 1)
    azure_vault.add("pinned", 2)
    async with (
        open_azure(azure_vault.uri("pinned", first.version)) as pinned,
        open_azure(azure_vault.uri("pinned")) as newest,
    ):
        assert (await pinned.wrap(KEY, CONTEXT)).key_version == first.version
        assert await pinned.unwrap(await newest.wrap(KEY, CONTEXT), CONTEXT) == KEY


async def test_a_version_in_the_uri_is_never_replaced(azure_vault: Any) -> None:
    """A named version that is disabled is refused, though another one could wrap."""
    first = azure_vault.add("pinned", 1, enabled=False)
    azure_vault.add("pinned", 2)
    with pytest.raises(Disabled, match=first.version):
        async with open_azure(azure_vault.uri("pinned", first.version)) as kms:
            await kms.check()


async def test_a_key_disabled_later_neither_wraps_nor_opens(azure_vault: Any) -> None:
    """Disabling a key is noticed with the next call, also by wrap, which the vault itself would still serve."""
    version = azure_vault.add("stopped", 1)
    async with open_azure(azure_vault.uri("stopped")) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        version.enabled = False
        for call in (kms.wrap(KEY, CONTEXT), kms.unwrap(wrap, CONTEXT), kms.generate(CONTEXT), kms.check()):
            with pytest.raises(Disabled):
                await call
        assert (await kms.describe()).state == "disabled"
    assert [each for each in azure_vault.asked if each.endswith("/wrapkey")] == [
        f"POST /keys/stopped/{version.version}/wrapkey"
    ]


async def test_an_expired_key_still_opens(azure_vault: Any) -> None:
    """A vault unwraps with an expired version, so leases go on while it wraps nothing new."""
    version = azure_vault.add("old", 1)
    async with open_azure(azure_vault.uri("old")) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        version.exp = 1
        assert await kms.unwrap(wrap, CONTEXT) == KEY
        with pytest.raises(Disabled, match="expired"):
            await kms.wrap(KEY, CONTEXT)


async def test_a_deleted_key_is_disabled(azure_vault: Any) -> None:
    """A key that is gone, softly deleted or not, is Disabled."""
    azure_vault.add("gone", 1)
    async with open_azure(azure_vault.uri("gone")) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        del azure_vault.keys["gone"]
        with pytest.raises(Disabled, match="404"):
            await kms.unwrap(wrap, CONTEXT)


async def test_every_wrap_and_unwrap_is_the_vaults(azure_vault: Any) -> None:
    """Nothing is computed here with the public key: the vault sees each wrap and each unwrap."""
    version = azure_vault.add("seen", 1)
    async with open_azure(azure_vault.uri("seen")) as kms:
        azure_vault.asked.clear()
        await kms.unwrap(await kms.wrap(KEY, CONTEXT), CONTEXT)
    base = f"POST /keys/seen/{version.version}"
    assert azure_vault.asked == ["GET /keys/seen", f"{base}/wrapkey", f"{base}/unwrapkey"]


async def test_a_caller_is_denied_with_the_remedy(azure_vault: Any) -> None:
    """A vault cannot decide per worker, and is not asked."""
    azure_vault.add("shared", 1)
    async with open_azure(azure_vault.uri("shared")) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        azure_vault.asked.clear()
        with pytest.raises(Denied, match='authorize = "broker"'):
            await kms.unwrap(wrap, CONTEXT, Caller(worker="ci-1", groups=()))
    assert azure_vault.asked == []


@pytest.mark.parametrize("version", ["", "../../secrets/x", "a/b", "a?b", "v" * 65, "ü"])
async def test_a_version_that_is_none_is_never_put_into_an_address(azure_vault: Any, version: str) -> None:
    """A record whose version could not be a vault's is Corrupt, and nothing is asked."""
    azure_vault.add("strict", 1)
    async with open_azure(azure_vault.uri("strict")) as kms:
        wrap = await kms.wrap(KEY, CONTEXT)
        azure_vault.asked.clear()
        with pytest.raises(Corrupt, match="names no version"):
            await kms.unwrap(Wrap(key_version=version, blob=wrap.blob), CONTEXT)
    assert azure_vault.asked == []


async def test_names_are_taken_in_any_case(azure_vault: Any) -> None:
    """A vault's names know no case, and a URI may spell one otherwise than the key was made."""
    azure_vault.add("broker", 1)
    async with open_azure(azure_vault.uri("Broker")) as kms:
        await kms.check()


async def test_a_good_key_is_described_without_warnings(azure_vault: Any) -> None:
    """An HSM key that is purge-protected and stays in the vault gives no cause to warn."""
    version = azure_vault.add("good", 1)
    async with open_azure(azure_vault.uri("good")) as kms:
        found = await kms.describe()
    assert (found.provider, found.state, found.key_version) == ("azure-kv", "enabled", version.version)
    assert found.hsm
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"kty": "RSA"}, "protected by software"),
        ({"exportable": True}, "exportable"),
        ({"recovery_level": "Recoverable+Purgeable"}, "no purge protection"),
        ({"exp": 1_900_000_000 + 3 * DAY_S + 5}, "expires in 3 days"),
    ],
)
async def test_what_may_surprise_is_a_warning(azure_vault: Any, made: dict[str, Any], says: str) -> None:
    """Software protection, exportability, a missing purge protection and a near expiry are each one line."""
    azure_vault.add("odd", 1, **made)
    async with open_azure(azure_vault.uri("odd")) as kms:
        found = await kms.describe()
    assert len(found.warnings) == 1
    assert says in found.warnings[0]


async def test_published_wraps_open(azure_vault: Any) -> None:
    """Published vectors never change: under another format, no wrap of yesterday opens."""
    vectors = json.loads((Path(__file__).parents[1] / "vectors/kms_azure.json").read_text())
    version = azure_vault.add("pinned-format", 7, kty="oct-HSM")
    assert version.aes.hex() == vectors["aes_key"]
    async with open_azure(azure_vault.uri("pinned-format")) as kms:
        for vector in vectors["wraps"]:
            wrap = Wrap(key_version=version.version, blob=bytes.fromhex(vector["blob"]))
            assert (await kms.unwrap(wrap, vector["context"])).hex() == vector["key"], vector["name"]
