"""The vault's bounds, with the values that hold unless an operator says otherwise.

Reading them from a file or the environment does not live here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from broker.errors import StartRefused


@dataclass(frozen=True, kw_only=True, slots=True)
class CachePolicy:
    """How long the unwrapped keys of one keyring may stay. soft_ttl_s, hard_ttl_s: as in `VaultSettings`.

    strict: a key serves the requests that waited for it and is wiped; it is never proved ahead, and no outage excuses
    it. The TTLs then count for nothing.
    """

    soft_ttl_s: float
    hard_ttl_s: float
    strict: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class VaultSettings:
    """Seconds, counts and rates. StartRefused: a value that would switch a protection off.

    soft_ttl_s, soft_jitter: an unwrapped key is proved again after soft_ttl_s, ± this share of it.
    hard_ttl_s: a key that no KMS has confirmed for so long is wiped, whatever the outage.
    policies: keyrings, by name, whose keys stay longer or shorter than that.
    strict_s: how long a key of a strict keyring serves after it came. Those who waited for it are decided again within
    milliseconds, or as soon as the commit before theirs is durable; if that takes longer, they ask once more.
    entries_max: unwrapped keys in memory; beyond, the least recently used is wiped.
    sweep_every_s: how often keys that are due are wiped or proved again.
    seal_proof_s: nothing is sealed under a key that its KMS has not opened within this time.
    wait_s: how long one request waits for a key. call_s: for one KMS call. queue_s: for a place to make it.
    check_s: for asking a KMS key whether it works, so that who asks several at once hears of all within 2 s.
    calls_max: KMS calls at a time, all KMS keys together. unwraps_max: data keys being unwrapped or queued for it.
    rate_per_s, burst: calls to one KMS key; keep it below the account's quota.
    breaker_failures: unanswered calls in a row after which a KMS key is left alone, for breaker_open_s at first,
    doubling up to breaker_open_max_s.
    failure_s, failure_max_s, failures_max: how long, and how many, failures are remembered.
    seals_max: values sealed under one data key. seals_block: seals set aside at a time. active_days: age at which a
    data key is due to be replaced.
    """

    soft_ttl_s: float = 300.0
    soft_jitter: float = 0.2
    hard_ttl_s: float = 3600.0
    policies: Mapping[str, CachePolicy] = field(default_factory=dict)
    strict_s: float = 1.0
    entries_max: int = 1024
    sweep_every_s: float = 1.0
    seal_proof_s: float = 180.0
    wait_s: float = 5.0
    call_s: float = 2.0
    queue_s: float = 2.0
    check_s: float = 1.5
    calls_max: int = 32
    unwraps_max: int = 1024
    rate_per_s: float = 100.0
    burst: int = 200
    breaker_failures: int = 5
    breaker_open_s: float = 1.0
    breaker_open_max_s: float = 30.0
    failure_s: float = 0.1
    failure_max_s: float = 5.0
    failures_max: int = 4096
    seals_max: int = 2**30
    seals_block: int = 65_536
    active_days: int = 30

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.name != "policies":
                _above_0(f"vault setting {each.name}", getattr(self, each.name))
        if self.soft_jitter >= 1:
            raise StartRefused(f"vault setting soft_jitter is {self.soft_jitter}; it is a share, below 1")
        self._check(self.policy(""), "the keyrings")
        for name, policy in self.policies.items():
            self._check(policy, f"keyring {name}")
        if self.failure_s < 0.1:
            raise StartRefused(f"vault setting failure_s is {self.failure_s:g}; below 0.1 a queue could storm a KMS")
        if not self.seals_block <= self.seals_max <= 2**32:
            raise StartRefused(
                f"vault setting seals_max is {self.seals_max}; it must be from seals_block {self.seals_block} to 2^32"
            )

    def policy(self, keyring: str) -> CachePolicy:
        """What counts for this keyring."""
        own = self.policies.get(keyring)
        return own or CachePolicy(soft_ttl_s=self.soft_ttl_s, hard_ttl_s=self.hard_ttl_s)

    @property
    def proving_s(self) -> float:
        """How long proving a key again may take before the key may not be served without an outage to excuse it."""
        return self.sweep_every_s + self.queue_s + self.call_s

    def fresh_s_max(self, policy: CachePolicy) -> float:
        """The longest a key is served after its KMS has opened it, unless the KMS does not answer."""
        return policy.soft_ttl_s * (1 + self.soft_jitter) + self.proving_s

    def _check(self, policy: CachePolicy, whose: str) -> None:
        _above_0(f"the soft TTL of {whose}", policy.soft_ttl_s)
        least_s = self.fresh_s_max(policy)
        if policy.hard_ttl_s < least_s:
            raise StartRefused(
                f"the hard TTL of {whose} is {policy.hard_ttl_s:g} s; with a soft TTL of {policy.soft_ttl_s:g} s it "
                f"must be at least {least_s:g} s, or keys would be wiped before they are proved again"
            )


def _above_0(what: str, value: float) -> None:
    if not value > 0:
        raise StartRefused(f"{what} is {value}; it must be above 0")
