"""No value and no data key shows in anything the vault says of itself."""

from __future__ import annotations

import base64
import traceback
from typing import Any

import msgspec
import pytest

from broker.vault.errors import SealBroken
from broker.vault.unwrapping import Unwrapped
from kms.errors import Corrupt, Denied, Unavailable

CANARY = b"CANARY-value-7f3a9c"


def forms(secret: bytes) -> list[str]:
    return [secret.hex(), base64.b64encode(secret).decode(), repr(secret)[2:-1], repr(bytearray(secret))[12:-2]]


def shown(thing: object) -> str:
    return f"{thing!r} {thing}"


async def test_what_the_vault_is_made_of_shows_no_secret(open_house: Any) -> None:
    """Vault, cache, held keys, needs, counters, health, sealed values and secrets: repr and str of each."""
    async with open_house() as house:
        record = await house.put(CANARY)
        held = house.vault._cache._held.all()[0]
        key = bytes(held.key)
        secret = await house.vault.open(record)
        things = [
            house.vault,
            house.vault._cache,
            house.vault._cache._held,
            held,
            held.need,
            house.vault.counters,
            house.vault.health(),
            secret,
            record,
            house.data_keys["dk-1"],
            Unwrapped(key=bytearray(key), kms_key="x"),
            await house.vault.seal(token="t", version=1, keyring=house.ring, value=CANARY),
        ]
        everything = " ".join(shown(thing) for thing in things)
        for form in forms(CANARY) + forms(key):
            assert form not in everything


@pytest.mark.parametrize("error", [Unavailable("x"), Denied("x"), Corrupt("x"), None])
async def test_no_failure_tells_a_key(open_house: Any, error: Exception | None) -> None:
    """Errors, their chains, their tracebacks and the alarms hold neither the data key nor what an SDK printed."""
    async with open_house() as house:
        record = await house.put(CANARY)
        key = bytes(house.vault._cache._held.all()[0].key)
        house.vault.flush()
        # An SDK's own exception may quote the request, so one that no adapter has translated must not be passed on.
        house.fail(error or RuntimeError(f"request was {key.hex()} {key!r}"))
        try:
            await house.vault.open(record)
        except Exception as caught:  # noqa: BLE001 - whatever it is, it is searched
            told = "".join(traceback.format_exception(caught)) + shown(vars(caught))
        told += " ".join(shown(alarm) for alarm in house.alarms)
        for form in forms(CANARY) + forms(key):
            assert form not in told


async def test_a_broken_seal_tells_no_secret(open_house: Any) -> None:
    """The error of a row that does not open names the row, and shows neither its key nor its bytes."""
    async with open_house() as house:
        record = await house.put(CANARY)
        key = bytes(house.vault._cache._held.all()[0].key)
        with pytest.raises(SealBroken) as caught:
            house.reveal(msgspec.structs.replace(record, version=2))
        told = "".join(traceback.format_exception(caught.value))
        assert "github/ci" in told
        for form in forms(CANARY) + forms(key):
            assert form not in told
