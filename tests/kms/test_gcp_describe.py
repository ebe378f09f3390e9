"""What operators see of a Google Cloud KMS key."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from kms.catalog import open_kms
from kms.errors import Unavailable
from kms.gcp import IN_THE_CLEAR, open_gcp
from kms.port import Description

DENIED = (grpc.StatusCode.PERMISSION_DENIED, "no")


async def described(gcp: Any, key: Any) -> Description:
    """What the key at the stand-in says of itself."""
    async with open_gcp(gcp.uri(key)) as kms:
        return await kms.describe()


async def test_a_key_in_order_has_no_warning(gcp: Any) -> None:
    """Version, state and the next rotation of a software key."""
    assert await described(gcp, gcp.key()) == Description(
        provider="Google Cloud KMS (SOFTWARE)",
        state="enabled, rotates next on 2031-05-06",
        key_version="1",
        hsm=False,
        warnings=(IN_THE_CLEAR,),
    )


@pytest.mark.parametrize(
    ("level", "hsm"),
    [("HSM", True), ("HSM_SINGLE_TENANT", True), ("EXTERNAL", False), ("EXTERNAL_VPC", False), ("SOFTWARE", False)],
)
async def test_only_googles_hsms_count_as_hardware(gcp: Any, gcp_standin: Any, level: str, hsm: bool) -> None:
    """A key at an external manager may be anywhere; its outage is warned of."""
    told = await described(gcp, gcp.key(level=gcp_standin.Level[level]))
    assert told.hsm is hsm
    assert any("external" in warning for warning in told.warnings) is level.startswith("EXTERNAL")


async def test_what_is_going_to_hurt_is_warned_of(gcp: Any, gcp_standin: Any) -> None:
    """A primary version that cannot wrap, versions that will be destroyed and when, a rotation that nobody set."""
    version, state = gcp_standin.Version, gcp_standin.State
    versions = {1: version(state=state.DESTROY_SCHEDULED), 2: version(), 3: version(state=state.DISABLED)}
    told = await described(gcp, gcp.key(rotates=False, primary=3, versions=versions))
    assert told.state == "disabled"
    assert [warning[:36] for warning in told.warnings] == [
        IN_THE_CLEAR[:36],
        "version 1 will be destroyed on 2030-",
        "version 3, which wraps, is disabled:",
        "no rotation is scheduled; set one wi",
    ]


@pytest.mark.parametrize("method", ["GetCryptoKey", "ListCryptoKeyVersions"])
async def test_without_the_right_to_look_a_round_trip_decides(gcp: Any, gcp_standin: Any, method: str) -> None:
    """The role to encrypt and decrypt is enough to work; describe says what it could not see, and how to let it."""
    gcp.refuse[method] = DENIED
    told = await described(gcp, gcp.key(level=gcp_standin.Level.HSM))
    assert (told.state, told.key_version, told.hsm) == ("enabled", "1", True)
    assert ["roles/cloudkms.viewer" in warning for warning in told.warnings] == [False, True]
    assert gcp.calls[-2:] == ["Encrypt", "Decrypt"]


async def test_a_long_list_of_doomed_versions_is_cut(gcp: Any, gcp_standin: Any) -> None:
    """Ten warnings are enough to act upon, also when more are sent than were asked for."""
    doomed = {number: gcp_standin.Version(state=gcp_standin.State.DESTROY_SCHEDULED) for number in range(2, 40)}
    key = gcp.key(versions={1: gcp_standin.Version(), **doomed})
    gcp.damage["ListCryptoKeyVersions"] = lambda request: setattr(request, "page_size", 100)
    assert len((await described(gcp, key)).warnings) == 1 + 10


@pytest.mark.filterwarnings("ignore:Unrecognized .* enum value")  # proto-plus says so, and gives the number
async def test_a_protection_level_of_tomorrow_is_shown_as_its_number(gcp: Any) -> None:
    """Google adds levels before the library knows them; that is no reason to refuse, nor to call it hardware."""

    def change(answer: Any) -> Any:
        type(answer).pb(answer).primary.protection_level = 99
        return answer

    gcp.change["GetCryptoKey"] = change
    told = await described(gcp, gcp.key())
    assert (told.provider, told.hsm) == ("Google Cloud KMS (99)", False)


async def test_an_outage_is_no_missing_right(gcp: Any) -> None:
    """describe raises what it met, and does not ask further."""
    key = gcp.key()
    gcp.refuse["GetCryptoKey"] = (grpc.StatusCode.UNAVAILABLE, "busy")
    async with open_gcp(gcp.uri(key)) as kms:
        with pytest.raises(Unavailable):
            await kms.describe()
    assert "Encrypt" not in gcp.calls


async def test_check_uses_the_key(gcp: Any) -> None:
    """check wraps and unwraps, and a key that gives back something else does not pass; through the catalog as well."""
    async with open_kms(gcp.uri(gcp.key())) as kms:
        await kms.check()
    assert gcp.calls[-2:] == ["Encrypt", "Decrypt"]
