"""The data-key cache: which key may serve now, when its KMS is asked again, and what each answer does to it.

    what the KMS keys said               cached key                      the next request for it
    one gave it                          replaced, served                served
    none gave it; that of the cached key
      was silent                         serves on until its hard TTL    served
      refused, or its wrap is damaged    wiped                           as below
    none gave it, one was silent         as above                        refused until that is forgotten: try later
    none was silent, one refused         wiped                           refused until that is forgotten, then asked
    every wrap is damaged                wiped                           refused until the row changes, or a flush
    one refused on behalf of a caller    wiped, that of this caller      as refused; nobody further is asked

Anything unknown is a refusal. A KMS key that says it is disabled takes all that it gave with it, whoever asked and
whoever else gave this key. `CachePolicy` says for how long each keyring's keys stay.

Opening values, and looking keys up, do not live here.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from broker.clock import Clock
from broker.vault.counters import VaultCounters
from broker.vault.failures import FailureKind, FailureMemory, KeyFailure
from broker.vault.flights import Flights
from broker.vault.held_keys import HeldKey, HeldKeys
from broker.vault.needs import Need
from broker.vault.settings import VaultSettings
from broker.vault.unwrapping import Asked, Unwrapped

_ATTEMPTS = 3


class KeyCache:
    """Data keys by everything that decides them (`Need`).

    tasks: owns the unwraps. unwrap: asks the KMS. is_current: whether the books still hold what a need was made from.
    """

    def __init__(
        self,
        *,
        tasks: asyncio.TaskGroup,
        unwrap: Callable[[Need], Awaitable[Asked]],
        is_current: Callable[[Need], bool],
        settings: VaultSettings,
        clock: Clock,
        jitter: Callable[[], float],
        counters: VaultCounters,
    ) -> None:
        self._unwrap = unwrap
        self._is_current = is_current
        self._settings = settings
        self._clock = clock
        self._now = clock.monotonic
        self._jitter = jitter
        self._counters = counters
        self._held = HeldKeys(entries_max=settings.entries_max, counters=counters)
        self._failures = FailureMemory(
            base_s=settings.failure_s, max_s=settings.failure_max_s, entries_max=settings.failures_max, jitter=jitter
        )
        self._flights: Flights[HeldKey | KeyFailure | None] = Flights(tasks=tasks, given_up=None, counters=counters)
        self._epoch = 0
        self._closed = False

    def __len__(self) -> int:
        """How many unwrapped keys are in memory."""
        return len(self._held)

    def oldest_s(self) -> float:
        """How long ago a KMS gave the oldest key that may serve now; 0.0 without one."""
        now = self._now()
        return max((now - held.proved_at for held in self._held.all() if held.may_serve(now)), default=0.0)

    def held(self, need: Need) -> HeldKey | None:
        """The key, if it may serve at once; None: `fetch` it. Raises what asking for it lately led to."""
        now = self._now()
        held = self._held.get(need)
        if held is not None and held.may_serve(now):
            self._held.use(held, now)
            self._counters.hits += 1
            if now >= held.fresh_until:
                self._counters.serve_stale(now - held.proved_at)
            return held
        self._refuse_remembered(need, now)
        return None

    async def fetch(self, need: Need, *, proved_within_s: float | None = None) -> HeldKey:
        """The key, from the KMS if it must be. It is live when this returns; use it before the next await.

        proved_within_s: a KMS must have given the key so lately, whatever the outage.
        KeyUnavailable: no KMS answered, none did within wait_s, too many keys are being unwrapped, or the broker
        stops. KeyDenied, CallerDenied, KeyCorrupt: see the table above.
        """
        for attempt in range(_ATTEMPTS):
            now = self._now()
            held = self._held.get(need)
            if held is not None and self._will_do(held, proved_within_s, now):
                self._counters.hits += 1
                self._held.use(held, now)
                return held
            self._refuse_remembered(need, now)
            if attempt == 0:
                self._counters.misses += 1
            outcome = await self._landing(need)
            if isinstance(outcome, KeyFailure):
                held, now = self._held.get(need), self._now()
                if held is None or not self._will_do(held, proved_within_s, now):
                    raise outcome.error()
                self._counters.serve_stale(now - held.proved_at)
                return held
            if outcome is not None and outcome.live:
                self._held.use(outcome, self._now())
                return outcome
            # Flushed while it was under way, or pushed out by others before this task ran: ask again.
        raise self._unavailable(need, "evicted", "the key was wiped as soon as it came").error(retry_after_s=0.1)

    def flush(self) -> None:
        """Wipe every key and forget every failure. Unwraps under way are not kept when they land."""
        self._epoch += 1
        self._flights.forget()
        self._failures.clear()
        self._held.evict(lambda _: True, "flushed")

    def follow(self, settings: VaultSettings, renewed: Callable[[Need], Need | None]) -> None:
        """Go on under other cache policies and with other KMS keys.

        renewed: what somebody needs now instead of what he needed, None for nothing. A key stays, for as long as its
        policy says now, if the KMS key that gave it may be asked still; what may not stay is wiped.
        """
        self._settings = settings
        self._held.evict(lambda held: not self._stays(held, renewed(held.need)), "replaced")
        self._held.reindex()

    def _stays(self, held: HeldKey, need: Need | None) -> bool:
        """Whether a held key may stay, now for this need; its times are those of the policy in force then."""
        if need is None or held.kms_key not in {wrap.kms_key for wrap in need.wraps}:
            return False
        if self._settings.policy(need.record.keyring).strict:
            return False
        held.need = need
        held.refresh_at, held.fresh_until, held.hard_until = self._times(need, held.proved_at)
        return True

    def close(self) -> None:
        """Flush, end what is under way, and refuse what comes."""
        self._closed = True
        self._flights.cancel()
        self.flush()

    async def run(self) -> None:
        """Sweep for ever; ends by cancellation."""
        while True:
            await self._clock.sleep(self._settings.sweep_every_s)
            self.sweep()

    def sweep(self) -> None:
        """Wipe what has run out, is no longer used or was replaced in the books; prove again what is due."""
        now = self._now()
        self._held.evict(lambda held: now >= held.hard_until, "expired")
        self._held.evict(lambda held: now - held.used_at >= self._idle_s(held), "idle")
        self._held.evict(lambda held: not self._is_current(held.need), "replaced")
        self._failures.sweep(now)
        for held in self._held.all():
            if now >= held.refresh_at:
                self._refresh(held, now)

    def _idle_s(self, held: HeldKey) -> float:
        # A worker's own key is not kept warm after the worker has gone: proving it again would speak in its name.
        policy = self._settings.policy(held.need.record.keyring)
        return policy.hard_ttl_s if held.need.caller is None else policy.soft_ttl_s

    @staticmethod
    def _will_do(held: HeldKey, proved_within_s: float | None, now: float) -> bool:
        return held.may_serve(now) and (proved_within_s is None or now - held.proved_at <= proved_within_s)

    def _refresh(self, held: HeldKey, now: float) -> None:
        """Start proving a held key again, unless that is under way or has just failed."""
        need = held.need
        if self._flights.get(need.id) is not None or self._failures.recall(need.id, now) is not None:
            return
        if self._closed or len(self._flights) >= self._settings.unwraps_max:
            return
        self._counters.refreshes += 1
        self._flights.launch(need.id, self._unwrap_and_keep(need))

    async def _landing(self, need: Need) -> HeldKey | KeyFailure | None:
        flight = self._flights.get(need.id)
        if flight is None:
            if self._closed:
                return self._unavailable(need, "closing", "the broker is stopping")
            if len(self._flights) >= self._settings.unwraps_max:
                return self._unavailable(need, "too_many_unwraps", "too many data keys are being unwrapped")
            flight = self._flights.launch(need.id, self._unwrap_and_keep(need))
        try:
            return await self._flights.wait(flight, wait_s=self._settings.wait_s)
        except TimeoutError:
            return self._unavailable(need, "timeout", f"no KMS gave the key within {self._settings.wait_s:g} s")

    async def _unwrap_and_keep(self, need: Need) -> HeldKey | KeyFailure | None:
        epoch = self._epoch
        asked_at = self._now()
        asked = await self._unwrap(need)
        given = asked.given
        if epoch != self._epoch:
            # The answer may be older than what the flush was for, such as a key that has been disabled.
            if isinstance(given, Unwrapped):
                given.key[:] = bytes(len(given.key))
            return None
        for failure in asked.failures:
            if failure.kind is FailureKind.DISABLED:
                self._held.evict(_given_by(failure.kms_key), failure.kind.value)
        if isinstance(given, KeyFailure):
            self._failed(need, given, asked)
            return given
        self._failures.forget(need.id)
        held = self._kept(need, given, asked_at)
        self._held.put(held)
        return held

    def _kept(self, need: Need, given: Unwrapped, asked_at: float) -> HeldKey:
        refresh_at, fresh_until, hard_until = self._times(need, asked_at)
        return HeldKey(
            need=need,
            key=given.key,
            kms_key=given.kms_key,
            proved_at=asked_at,
            refresh_at=refresh_at,
            fresh_until=fresh_until,
            hard_until=hard_until,
        )

    def _times(self, need: Need, proved_at: float) -> tuple[float, float, float]:
        """When a key that was proved then is proved again, until when it is fresh, and when it is wiped."""
        settings = self._settings
        policy = settings.policy(need.record.keyring)
        if policy.strict:
            # From when it came, not from when it was asked for: a slow KMS must not make it useless to who waited.
            until = self._now() + settings.strict_s
            return math.inf, until, until
        refresh_at = proved_at + policy.soft_ttl_s * (1 + settings.soft_jitter * (2 * self._jitter() - 1))
        return refresh_at, proved_at + settings.fresh_s_max(policy), proved_at + policy.hard_ttl_s

    def _failed(self, need: Need, failure: KeyFailure, asked: Asked) -> None:
        self._failures.remember(need.id, failure, self._now())
        held = self._held.get(need)
        if held is None:
            return
        if failure.kind is FailureKind.UNAVAILABLE and asked.serves_on(held.kms_key):
            held.outage = True
            return
        # Where the answer is "try later", it is the cached key's own KMS key that said something else.
        told = (failure, *(each for each in asked.failures if each.kms_key == held.kms_key))
        cause = next(each.kind for each in told if each.kind is not FailureKind.UNAVAILABLE)
        self._held.evict(lambda each: each is held, cause.value)

    def _refuse_remembered(self, need: Need, now: float) -> None:
        error = self._failures.recall(need.id, now)
        if error is not None:
            raise error

    @staticmethod
    def _unavailable(need: Need, reason: str, detail: str) -> KeyFailure:
        return need.failure(FailureKind.UNAVAILABLE, reason=reason, detail=detail)


def _given_by(kms_key: str) -> Callable[[HeldKey], bool]:
    return lambda held: held.kms_key == kms_key
