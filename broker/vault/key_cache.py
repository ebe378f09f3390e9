"""The data-key cache: which key may serve now, when its KMS is asked again, and what each answer does to it.

    answer       cached key                         the next request for it
    ok           replaced, served                   served
    unavailable  serves on until its hard TTL       served if cached; else refused until the failure is forgotten
    denied       wiped at once                      refused until the failure is forgotten, then the KMS is asked
    disabled     wiped, with all of that KMS key    as denied
    corrupt      wiped                              refused until the row changes or the cache is flushed
    unknown      as denied                          as denied

Opening values, and looking keys up, do not live here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from broker.clock import Clock
from broker.vault.counters import VaultCounters
from broker.vault.failures import FailureKind, FailureMemory, KeyFailure
from broker.vault.flights import Flights
from broker.vault.held_keys import HeldKey, HeldKeys
from broker.vault.needs import Need
from broker.vault.settings import VaultSettings
from broker.vault.unwrapping import Unwrapped

_ATTEMPTS = 3


class KeyCache:
    """Data keys by everything that decides them (`Need`).

    tasks: owns the unwraps. unwrap: asks the KMS. is_current: whether the books still hold what a need was made from.
    """

    def __init__(
        self,
        *,
        tasks: asyncio.TaskGroup,
        unwrap: Callable[[Need], Awaitable[Unwrapped | KeyFailure]],
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

    def held(self, need: Need) -> HeldKey | None:
        """The key, if it may serve at once; None: `fetch` it. Raises what asking for it lately led to."""
        now = self._now()
        held = self._held.get(need)
        if held is not None and held.may_serve(now):
            self._held.use(held, now)
            self._counters.hits += 1
            if now >= held.fresh_until:
                self._counters.stale_served += 1
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
                held = self._held.get(need)
                if held is None or not self._will_do(held, proved_within_s, self._now()):
                    raise outcome.error()
                self._counters.stale_served += 1
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
        return self._settings.hard_ttl_s if held.need.caller is None else self._settings.soft_ttl_s

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
        outcome = await self._unwrap(need)
        if epoch != self._epoch:
            # The answer may be older than what the flush was for, such as a key that has been disabled.
            if isinstance(outcome, Unwrapped):
                outcome.key[:] = bytes(len(outcome.key))
            return None
        if isinstance(outcome, KeyFailure):
            self._failed(need, outcome)
            return outcome
        self._failures.forget(need.id)
        settings = self._settings
        held = HeldKey(
            need=need,
            key=outcome.key,
            kms_key=outcome.kms_key,
            proved_at=asked_at,
            refresh_at=asked_at + settings.soft_ttl_s * (1 + settings.soft_jitter * (2 * self._jitter() - 1)),
            fresh_until=asked_at + settings.fresh_s_max,
            hard_until=asked_at + settings.hard_ttl_s,
        )
        self._held.put(held)
        return held

    def _failed(self, need: Need, failure: KeyFailure) -> None:
        self._failures.remember(need.id, failure, self._now())
        if failure.kind is FailureKind.UNAVAILABLE:
            held = self._held.get(need)
            if held is not None:
                held.outage = True
        elif failure.kind is FailureKind.DISABLED:
            self._held.evict(
                lambda held: held.need.id == need.id or held.kms_key == failure.kms_key, failure.kind.value
            )
        else:
            self._held.evict(lambda held: held.need.id == need.id, failure.kind.value)

    def _refuse_remembered(self, need: Need, now: float) -> None:
        error = self._failures.recall(need.id, now)
        if error is not None:
            raise error

    @staticmethod
    def _unavailable(need: Need, reason: str, detail: str) -> KeyFailure:
        return need.failure(FailureKind.UNAVAILABLE, reason=reason, detail=detail)
