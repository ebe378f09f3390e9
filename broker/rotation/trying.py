"""A dry run: let a rotator make, set and try a value on a staging target, take it back, and change nothing in use.

The value in use is not given to the rotator: staging has no business with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from broker.admin.asked import NewVersion
from broker.admin.put import TokenPutter
from broker.admin.signing_in import SigningIn
from broker.audit.entries import RotationChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BrokerError
from broker.ids import random_id
from broker.rotation.book import RotationBook
from broker.rotation.errors import NoStaging
from broker.rotation.hand import Hand, open_hand
from broker.rotation.rotators import Rotators, check_made, told
from broker.rotation.terms import TRIED_CALL_S_MAX
from broker.secret import Secret
from broker.upstream.port import Made, Rotation, Rotator
from storage.records import RotationPolicyRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """How one step went. error: empty if it went well."""

    step: str
    error: str


class DryRuns:
    """Tries policies. A broker that dies meanwhile leaves what was made on the staging target; nobody goes on there."""

    def __init__(
        self,
        *,
        authority: Authority,
        putter: TokenPutter,
        signing_in: SigningIn,
        rotations: RotationBook,
        rotators: Rotators,
        clock: Clock,
    ) -> None:
        self._authority = authority
        self._putter = putter
        self._signing_in = signing_in
        self._rotations = rotations
        self._rotators = rotators
        self._clock = clock

    async def run(self, token: str, *, actor: str) -> tuple[Tried, ...]:
        """Create, set, test, abandon; after a step that fails, only abandon. That it was tried is recorded first.

        NoStaging: the policy names no staging target, and the rotator makes something somewhere. NotFound.
        """
        policy = self._rotations.policy(token)
        if (
            not policy.staging
            and not policy.staging_credentials
            and not await self._rotators.is_offline(policy.rotator)
        ):
            raise NoStaging(
                f"the rotation of {token} names no staging target, so a dry run would touch what is in use; name one "
                "with `rotation set … --staging key=value`"
            )
        entry = RotationChanged(at=self._clock.now(), actor=actor, token=token, change="tried")
        await self._authority.commit((entry,))
        async with open_hand() as hand:
            return await self._tried(policy, hand, actor)

    async def _tried(self, policy: RotationPolicyRecord, hand: Hand, actor: str) -> tuple[Tried, ...]:
        holders = {**policy.credentials, **policy.staging_credentials}
        rotation = Rotation(
            token=policy.token,
            settings={**policy.settings, **policy.staging},
            credentials=await hand.hold(self._signing_in.opened(holders)),
            id=random_id(),
        )
        tried: list[Tried] = []
        made: list[Made] = []

        async def attempt(
            step: str,
            question: Callable[[Rotator], Awaitable[None]],
            then: Callable[[], Awaitable[None]] | None = None,
        ) -> bool:
            try:
                await self._rotators.ask(policy.rotator, min(policy.call_s, TRIED_CALL_S_MAX), question)
                if then is not None:
                    await then()
            except BrokerError as error:
                tried.append(Tried(step=step, error=told(error, hand.secrets)))
                return False
            tried.append(Tried(step=step, error=""))
            return True

        async def create(rotator: Rotator) -> None:
            one = check_made(await rotator.create(rotation, None), credentials=holders)
            hand.take(one.value, *one.credentials.values())
            made.append(one)

        async def store() -> None:
            await self._store(holders, made[0].credentials, actor)

        if await attempt("create", create, store):
            new, noted = made[0].value, replace(rotation, notes=made[0].notes)
            if await attempt("set", lambda each: each.set(noted, new, None)):
                await attempt("test", lambda each: each.test(noted, new))
            await attempt("abandon", lambda each: each.abandon(noted, new))
        else:
            await attempt("abandon", lambda each: each.abandon(rotation, made[0].value if made else None))
        return tuple(tried)

    async def _store(self, holders: Mapping[str, str], made: Mapping[str, Secret], actor: str) -> None:
        """Keep credentials that the making used up; without that, staging could not be signed in to again."""
        for name, value in made.items():
            await self._putter.put(NewVersion(token=holders[name], value=value.reveal()), actor=actor)
