"""What an adapter's tests tell the laws: a target upstream, made fresh for one law, and whether it takes a value."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.secret import Secret
from broker.upstream.port import Issuer, Rotator


@dataclass(frozen=True, kw_only=True, slots=True)
class BadTerms:
    """Settings and credentials (name to token) that `check` must refuse, and the name that its message must hold."""

    names: str
    settings: Mapping[str, str]
    credentials: Mapping[str, str]


@dataclass(kw_only=True)
class World(ABC):
    """One target upstream. Not frozen: a law takes note of what has become of it.

    settings, credentials: of a policy that leads to the target. wrong_credentials: such that upstream takes none of
    them; empty where the adapter signs in with nothing. bystander: a value that upstream takes, and that no policy of
    this world has to do with; None: there is none. lapses: what nobody knows any more ends by itself, and nobody can
    take it back before.
    """

    settings: Mapping[str, str]
    credentials: Mapping[str, Secret] = field(default_factory=dict)
    wrong_credentials: Mapping[str, Secret] = field(default_factory=dict)
    bad_terms: tuple[BadTerms, ...] = ()
    bystander: Secret | None = None
    lapses: bool = False

    @abstractmethod
    async def works(self, value: Secret) -> bool:
        """Whether upstream takes this value now. The laws ask upstream itself, never the adapter."""

    @abstractmethod
    async def live(self) -> int:
        """How many values of this world's target upstream takes now; the bystander's is not one of them."""


@dataclass(kw_only=True)
class RotatorWorld(World):
    """A target whose value is rotated.

    current: the value in use; upstream takes it. None in a world before the first rotation. asks: False for a rotator
    that has nobody upstream, so that every value is as good as another.
    """

    rotator: Rotator
    current: Secret | None
    asks: bool = True

    @abstractmethod
    def wrong(self, value: Secret) -> Secret:
        """A value of the same form as `value`, which upstream never took."""


@dataclass(kw_only=True)
class IssuerWorld(World):
    """A target that makes values for leases.

    revokes: False where upstream has no way to end a value before its time. distinct: False where two leases may be
    given one and the same value.
    """

    issuer: Issuer
    revokes: bool = True
    distinct: bool = True
