"""Issuers that each get one thing wrong, around the real issuer `postgresql-user`. Each shows that a law can fail."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from broker.secret import Secret
from broker.upstream.conformance import IssuerWorld
from broker.upstream.errors import BadSettings, Failed, Refused, UpstreamError
from broker.upstream.port import Issued, Issuer, Wanted


class Saboteur:
    """Passes every call on. world: what it may reach into."""

    def __init__(self, *, real: Issuer, world: IssuerWorld) -> None:
        self.real = real
        self.world: Any = world
        self.memory: dict[str, Any] = {}

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """Pass on."""
        self.real.check(settings, credentials)

    def handle(self, wanted: Wanted) -> Mapping[str, str]:
        """Pass on."""
        return self.real.handle(wanted)

    async def issue(self, wanted: Wanted) -> Issued:
        """Pass on."""
        return await self.real.issue(wanted)

    async def revoke(self, wanted: Wanted, handle: Mapping[str, str], value: Secret | None) -> None:
        """Pass on."""
        await self.real.revoke(wanted, handle, value)


class IssuesNonsense(Saboteur):
    """Makes one value, and hands out another."""

    async def issue(self, wanted: Wanted) -> Issued:
        issued = await self.real.issue(wanted)
        return replace(issued, value=Secret(issued.value.reveal().replace(b'"password":"', b'"password":"x')))


class RevokesNothing(Saboteur):
    """Says that it has ended what it has not."""

    async def revoke(self, wanted: Wanted, handle: Mapping[str, str], value: Secret | None) -> None:
        return


class EndsTheBystander(Saboteur):
    """Ends somebody else's value too."""

    async def revoke(self, wanted: Wanted, handle: Mapping[str, str], value: Secret | None) -> None:
        await self.real.revoke(wanted, handle, value)
        other = self.world.group.replace("_app", "_other")
        self.world.postgres.sql("postgres", f"ALTER ROLE {other} NOLOGIN")


class ForgetsItsHandle(Saboteur):
    """Tells another name each time."""

    def handle(self, wanted: Wanted) -> Mapping[str, str]:
        return {**self.real.handle(wanted), "attempt": secrets.token_hex(4)}


class RevokesByValueAlone(Saboteur):
    """Cannot end what it does not know the value of, and does not say so."""

    async def revoke(self, wanted: Wanted, handle: Mapping[str, str], value: Secret | None) -> None:
        if value is not None:
            await self.real.revoke(wanted, handle, value)


class LeavesTheFirst(Saboteur):
    """Makes another value for each attempt."""

    async def issue(self, wanted: Wanted) -> Issued:
        number = self.memory["number"] = self.memory.get("number", 0) + 1
        return await self.real.issue(replace(wanted, lease=f"{wanted.lease[:28]}{number:04x}"))


class RevokesOnce(Saboteur):
    """Fails where nothing is left to end."""

    async def revoke(self, wanted: Wanted, handle: Mapping[str, str], value: Secret | None) -> None:
        if self.memory.get(wanted.lease):
            raise Failed("it is gone")
        self.memory[wanted.lease] = True
        await self.real.revoke(wanted, handle, value)


class RevokesOnlyWhatWas(Saboteur):
    """Knows in its memory what it issued, and fails for anything else."""

    async def issue(self, wanted: Wanted) -> Issued:
        issued = await self.real.issue(wanted)
        self.memory[wanted.lease] = True
        return issued

    async def revoke(self, wanted: Wanted, handle: Mapping[str, str], value: Secret | None) -> None:
        if wanted.lease not in self.memory:
            raise Failed("it never was")
        await self.real.revoke(wanted, handle, value)


class GivesOneToAll(Saboteur):
    """Hands the first value to everybody."""

    async def issue(self, wanted: Wanted) -> Issued:
        if "issued" not in self.memory:
            self.memory["issued"] = await self.real.issue(wanted)
        issued: Issued = self.memory["issued"]
        return issued


class MixesCalls(Saboteur):
    """Keeps what it is asked in one place for all calls, and hands out a value that is not what it made."""

    async def issue(self, wanted: Wanted) -> Issued:
        self.memory["wanted"] = wanted
        await asyncio.sleep(0)
        return await self.real.issue(self.memory["wanted"])


class NamesNoZone(Saboteur):
    """Tells an end that can be read in any zone."""

    async def issue(self, wanted: Wanted) -> Issued:
        return replace(await self.real.issue(wanted), ends_at=datetime(2027, 1, 1))  # noqa: DTZ001 - the very fault


class ForgetsWhatWasCut(Saboteur):
    """Ends only what it remembers to have issued to the end."""

    async def issue(self, wanted: Wanted) -> Issued:
        issued = await self.real.issue(wanted)
        self.memory[wanted.lease] = True
        return issued

    async def revoke(self, wanted: Wanted, handle: Mapping[str, str], value: Secret | None) -> None:
        if wanted.lease in self.memory:
            await self.real.revoke(wanted, handle, value)


class RemembersTooEarly(Saboteur):
    """Takes what it has begun to end for ended."""

    async def revoke(self, wanted: Wanted, handle: Mapping[str, str], value: Secret | None) -> None:
        if wanted.lease not in self.memory:
            self.memory[wanted.lease] = True
            await asyncio.sleep(0)
            await self.real.revoke(wanted, handle, value)


class SwallowsCancellation(Saboteur):
    """Goes on when it is cancelled."""

    async def issue(self, wanted: Wanted) -> Issued:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return await self.real.issue(wanted)


class HandlesTheValue(Saboteur):
    """Remembers the value where everybody can read it."""

    async def issue(self, wanted: Wanted) -> Issued:
        issued = await self.real.issue(wanted)
        return replace(issued, handle={**issued.handle, "value": issued.value.reveal().hex()})


class SignsInAnyway(Saboteur):
    """Serves whoever asks."""

    async def issue(self, wanted: Wanted) -> Issued:
        return await self.real.issue(replace(wanted, credentials=self.world.credentials))


class QuotesThePassword(Saboteur):
    """Says in its error what it signed in with."""

    async def issue(self, wanted: Wanted) -> Issued:
        try:
            return await self.real.issue(wanted)
        except UpstreamError:
            shown = ", ".join(secret.reveal().decode() for secret in wanted.credentials.values())
            raise Refused(f"not with {shown}") from None


class TakesAnySettings(Saboteur):
    """Looks at nothing before a policy is stored."""

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        return


class RefusesItsOwn(Saboteur):
    """Refuses a policy that works."""

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        raise BadSettings("the setting host is wrong")


LAW_BREAKERS: dict[str, tuple[type[Saboteur], ...]] = {
    "test_a_value_works_until_it_is_revoked": (IssuesNonsense, RevokesNothing, EndsTheBystander),
    "test_the_handle_is_known_before": (ForgetsItsHandle, RevokesByValueAlone),
    "test_issuing_twice_leaves_one_value": (LeavesTheFirst,),
    "test_revoking_twice_is_revoking_once": (RevokesOnce, RevokesNothing),
    "test_what_never_was_can_be_revoked": (RevokesOnlyWhatWas, EndsTheBystander),
    "test_each_lease_has_its_own_value": (GivesOneToAll,),
    "test_leases_do_not_mix": (MixesCalls,),
    "test_an_end_is_told_with_its_zone": (NamesNoZone,),
    "test_issue_cut_short_leaves_nothing": (ForgetsWhatWasCut, SwallowsCancellation),
    "test_revoke_cut_short_is_made_good": (RemembersTooEarly,),
    "test_nothing_secret_is_in_a_handle": (HandlesTheValue,),
    "test_who_cannot_sign_in_gets_an_error_that_tells_nothing": (SignsInAnyway, QuotesThePassword),
    "test_wrong_settings_are_named": (TakesAnySettings, RefusesItsOwn),
}
"""For each law, issuers that it must catch."""
