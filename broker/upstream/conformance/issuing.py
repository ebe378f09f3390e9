"""The laws of issuers. What is particular to one service is its adapter's own tests.

Crashes are played as cancellations: the value that `issue` gave is lost, and what is left is what `handle` told before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from broker.secret import Secret
from broker.upstream.conformance.terms import check_refuses, check_takes
from broker.upstream.conformance.verdict import (
    LawBroken,
    answered,
    awaits,
    cut_short,
    cuts,
    notes_are_fit,
    refused,
    require,
    tells_nothing,
)
from broker.upstream.conformance.walk import TOKEN, new_id
from broker.upstream.conformance.world import IssuerWorld
from broker.upstream.errors import EndsByItself, UpstreamError
from broker.upstream.port import Issued, Wanted

TTL_S = 900.0
"""How long the lease of a law may live; services have a shortest life for what they make, and this is AWS's."""


class IssuerLaws:
    """The laws. A subclass gives the fixture `world`, made anew for each test."""

    name: ClassVar[str]
    """The issuer that is enrolled here, by the name of its entry point."""
    deadline_s: ClassVar[float] = 30.0
    """How long a call may take before the law counts as broken."""
    cuts_max: ClassVar[int] = 10
    """At how many of its awaits a call is cut short; fewer where each call goes over many of them slowly."""

    async def test_a_value_works_until_it_is_revoked(self, world: IssuerWorld) -> None:
        """Upstream takes what was issued, and does not take it once `revoke` has returned."""
        wanted = self._wanted(world)
        issued = await self._issue(world, wanted)
        require(await world.works(issued.value), "upstream does not take what was issued")
        if await self._revoke(world, wanted, issued.handle, issued.value):
            require(not await world.works(issued.value), "upstream still takes what was revoked")
        await self._bystander_works(world)

    async def test_the_handle_is_known_before(self, world: IssuerWorld) -> None:
        """What was issued, and lost before anybody stored it, is ended by what `handle` told, without the value."""
        wanted = self._wanted(world)
        handle = world.issuer.handle(wanted)
        require(world.issuer.handle(wanted) == handle, "`handle` tells something else each time")
        notes_are_fit(handle, world.credentials.values(), of="what `handle` tells")
        issued = await self._issue(world, wanted)
        if await self._revoke(world, wanted, handle, None) and not world.lapses:
            require(not await world.works(issued.value), "what was lost still works after `revoke`")
            require(await world.live() == 0, "`revoke` left something upstream")

    async def test_issuing_twice_leaves_one_value(self, world: IssuerWorld) -> None:
        """Asked again for the same lease, an issuer gives the same value, or one in the place of the first."""
        wanted = self._wanted(world)
        await self._issue(world, wanted)
        again = await self._issue(world, wanted)
        require(await world.works(again.value), "upstream does not take what was issued again")
        require(world.lapses or await world.live() == 1, "issuing again left two values upstream")
        if await self._revoke(world, wanted, again.handle, again.value) and not world.lapses:
            require(await world.live() == 0, "`revoke` left something upstream")

    async def test_revoking_twice_is_revoking_once(self, world: IssuerWorld) -> None:
        """What is gone may be revoked again, with its value and without."""
        wanted = self._wanted(world)
        issued = await self._issue(world, wanted)
        for value in (issued.value, issued.value, None):
            if await self._revoke(world, wanted, issued.handle, value):
                require(not await world.works(issued.value), "upstream still takes what was revoked")
        await self._bystander_works(world)

    async def test_what_never_was_can_be_revoked(self, world: IssuerWorld) -> None:
        """`revoke` of a lease for which nothing was made returns, and ends nothing of another lease."""
        other = self._wanted(world)
        issued = await self._issue(world, other)
        wanted = self._wanted(world)
        await self._revoke(world, wanted, world.issuer.handle(wanted), None)
        require(await world.works(issued.value), "revoking what never was ended another lease's value")
        await self._bystander_works(world)

    async def test_each_lease_has_its_own_value(self, world: IssuerWorld) -> None:
        """Two leases have two values, and revoking one leaves the other."""
        if world.distinct:
            one, two = self._wanted(world), self._wanted(world)
            first, second = await self._issue(world, one), await self._issue(world, two)
            require(first.value.reveal() != second.value.reveal(), "two leases were given one value")
            if await self._revoke(world, one, first.handle, first.value):
                require(not await world.works(first.value), "upstream still takes what was revoked")
            require(await world.works(second.value), "revoking one lease's value ended another's")

    async def test_leases_do_not_mix(self, world: IssuerWorld) -> None:
        """Values that are asked for at the same time all work."""
        wanted = [self._wanted(world) for _ in range(4)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._issue(world, each)) for each in wanted]
        except ExceptionGroup as errors:
            raise LawBroken("asked for several values at a time, it did not give them all") from errors
        for task in tasks:
            require(await world.works(task.result().value), "a value that was asked for beside others does not work")

    async def test_an_end_is_told_with_its_zone(self, world: IssuerWorld) -> None:
        """`ends_at` is an aware instant, or None where upstream ends nothing by itself."""
        issued = await self._issue(world, self._wanted(world))
        require(issued.ends_at is None or issued.ends_at.utcoffset() is not None, "`ends_at` names no time zone")

    async def test_issue_cut_short_leaves_nothing(self, world: IssuerWorld) -> None:
        """Cancelled at any await, what `issue` made is found and ended by `revoke`, and may be issued again."""
        wanted = self._wanted(world)
        issued, waited = await self._answer(awaits(world.issuer.issue(wanted)), "issue")
        await self._revoke(world, wanted, issued.handle, issued.value)
        # From the last await on, where the value is there already and only nobody was told: that one is lost.
        for number, at in enumerate(reversed(cuts(waited, self.cuts_max))):
            wanted = self._wanted(world)
            handle = world.issuer.handle(wanted)
            await self._cut(world.issuer.issue(wanted), at, "issue")
            value = None
            if number % 2:
                issued = await self._issue(world, wanted)
                require(await world.works(issued.value), "what was issued again does not work")
                handle, value = issued.handle, issued.value
            if await self._revoke(world, wanted, handle, value) and not world.lapses:
                require(await world.live() == 0, f"`issue`, cut short at its await {at}, left something upstream")
        await self._bystander_works(world)

    async def test_revoke_cut_short_is_made_good(self, world: IssuerWorld) -> None:
        """Cancelled at any await, `revoke` asked again ends the value."""
        if world.revokes:
            wanted = self._wanted(world)
            issued = await self._issue(world, wanted)
            call = world.issuer.revoke(wanted, issued.handle, issued.value)
            _, waited = await self._answer(awaits(call), "revoke")
            for at in cuts(waited, self.cuts_max):
                wanted = self._wanted(world)
                issued = await self._issue(world, wanted)
                await self._cut(world.issuer.revoke(wanted, issued.handle, issued.value), at, "revoke")
                await self._revoke(world, wanted, issued.handle, issued.value)
                require(not await world.works(issued.value), "`revoke`, cut short and asked again, left the value")

    async def test_nothing_secret_is_in_a_handle(self, world: IssuerWorld) -> None:
        """A handle keeps its bounds, and holds neither the value nor a credential."""
        issued = await self._issue(world, self._wanted(world))
        notes_are_fit(issued.handle, [issued.value, *world.credentials.values()], of="the handle")

    async def test_who_cannot_sign_in_gets_an_error_that_tells_nothing(self, world: IssuerWorld) -> None:
        """With credentials that upstream does not take nothing is issued, and the error shows none of them."""
        if world.wrong_credentials:
            before = await world.live()
            wanted = replace(self._wanted(world), credentials=world.wrong_credentials)
            call = world.issuer.issue(wanted)
            error = await refused(call, of="issue with wrong credentials", deadline_s=self.deadline_s)
            tells_nothing(error, [*world.credentials.values(), *world.wrong_credentials.values()])
            require(await world.live() == before, "with wrong credentials something was made")
            await self._quiet_revoke(world, wanted)

    async def test_wrong_settings_are_named(self, world: IssuerWorld) -> None:
        """`check` takes the policy of this world, and names what is wrong in each that is not right."""
        check_takes(world.issuer, world)
        for bad in world.bad_terms:
            check_refuses(world.issuer, bad)

    def _wanted(self, world: IssuerWorld) -> Wanted:
        return Wanted(
            token=TOKEN,
            settings=world.settings,
            credentials=world.credentials,
            lease=new_id(),
            worker="laws-worker",
            groups=("laws",),
            ttl_s=TTL_S,
        )

    async def _answer(self, call: Coroutine[Any, Any, Any], of: str) -> Any:
        return await answered(call, of=of, deadline_s=self.deadline_s)

    async def _issue(self, world: IssuerWorld, wanted: Wanted) -> Issued:
        """What is issued, after the handle was asked for, as the broker does."""
        world.issuer.handle(wanted)
        issued = await answered(world.issuer.issue(wanted), of="issue", deadline_s=self.deadline_s)
        require(len(issued.value) > 0, "an empty value was issued")
        return issued

    async def _revoke(
        self, world: IssuerWorld, wanted: Wanted, handle: Mapping[str, str], value: Secret | None
    ) -> bool:
        """Whether upstream ended it. LawBroken: refused, or said to end by itself where upstream can end it."""
        try:
            await answered(world.issuer.revoke(wanted, handle, value), of="revoke", deadline_s=self.deadline_s)
        except LawBroken as broken:
            if isinstance(broken.__cause__, EndsByItself) and (not world.revokes or (world.lapses and value is None)):
                return False
            raise
        return True

    async def _cut(self, call: Coroutine[Any, Any, Any], at: int, of: str) -> None:
        await cut_short(call, at=at, of=of, deadline_s=self.deadline_s)

    async def _quiet_revoke(self, world: IssuerWorld, wanted: Wanted) -> None:
        try:
            await world.issuer.revoke(wanted, world.issuer.handle(wanted), None)
        except UpstreamError as error:
            tells_nothing(error, [*world.credentials.values(), *world.wrong_credentials.values()])

    async def _bystander_works(self, world: IssuerWorld) -> None:
        if world.bystander is not None:
            require(await world.works(world.bystander), "a value of somebody else was ended")
