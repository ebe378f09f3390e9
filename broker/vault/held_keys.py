"""Unwrapped data keys in memory: how long each may serve, and the bounded store that wipes what leaves.

Getting keys from a KMS, and deciding what its refusals mean, do not live here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.vault.counters import VaultCounters
from broker.vault.needs import Need

if TYPE_CHECKING:
    from broker.vault.envelope import ValueKey
    from storage.records import VersionRecord


class HeldKey:
    """One unwrapped data key. Instants are monotonic seconds.

    proved_at: when the KMS was last asked with success. refresh_at: when it is asked again. fresh_until: until when
    the key serves without an excuse. hard_until: until when it serves while `outage` says that the KMS does not answer.
    messages: what was derived from it for single values, by their sealed form: `message_keys` fills and bounds it.
    """

    __slots__ = (
        "fresh_until",
        "hard_until",
        "key",
        "kms_key",
        "messages",
        "need",
        "outage",
        "proved_at",
        "refresh_at",
        "used_at",
    )

    def __init__(
        self,
        *,
        need: Need,
        key: bytearray,
        kms_key: str,
        proved_at: float,
        refresh_at: float,
        fresh_until: float,
        hard_until: float,
    ) -> None:
        self.need = need
        self.key = key
        self.kms_key = kms_key
        self.proved_at = proved_at
        self.refresh_at = refresh_at
        self.fresh_until = fresh_until
        self.hard_until = hard_until
        self.used_at = proved_at
        self.outage = False
        self.messages: dict[bytes, tuple[VersionRecord, ValueKey] | None] = {}

    def __repr__(self) -> str:
        return f"HeldKey(data_key={self.need.record.id!r}, live={self.live})"

    @property
    def live(self) -> bool:
        """Whether the key is still here, and not wiped."""
        return bool(self.key)

    def may_serve(self, now: float) -> bool:
        """Whether the key may open a value at `now`."""
        return now < self.fresh_until or (self.outage and now < self.hard_until)

    def wipe(self) -> None:
        """Overwrite the key, and let go of what was derived from it. Best effort: the KMS's SDK and the cipher have had
        copies of their own.
        """
        self.messages.clear()
        self.key[:] = bytes(len(self.key))
        self.key.clear()


class HeldKeys:
    """At most entries_max keys by their need's id; beyond, the least recently used goes. Whatever goes is wiped."""

    def __init__(self, *, entries_max: int, counters: VaultCounters) -> None:
        self._entries_max = entries_max
        self._counters = counters
        self._held: OrderedDict[bytes, HeldKey] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, need: Need) -> HeldKey | None:
        """The key for `need`, without counting as a use of it."""
        return self._held.get(need.id)

    def use(self, held: HeldKey, now: float) -> None:
        """Count a use: the key goes last."""
        held.used_at = now
        self._held.move_to_end(held.need.id)

    def put(self, held: HeldKey) -> None:
        """Hold a key; one that was held for the same need is wiped, and its uses count for this one."""
        before = self._held.get(held.need.id)
        if before is not None:
            held.used_at = before.used_at
            before.wipe()
        self._held[held.need.id] = held
        if len(self._held) > self._entries_max:
            _, oldest = self._held.popitem(last=False)
            oldest.wipe()
            self._counters.evictions["capacity"] += 1

    def evict(self, which: Callable[[HeldKey], bool], cause: str) -> None:
        """Wipe every key that `which` names. cause: a key of `VaultCounters.evictions`."""
        for held in [held for held in self._held.values() if which(held)]:
            del self._held[held.need.id]
            held.wipe()
            self._counters.evictions[cause] += 1

    def reindex(self) -> None:
        """Hold each key for the need that it has now; of two for the same need, the one that was used last."""
        before, self._held = self._held, OrderedDict()
        for held in before.values():
            self.put(held)

    def all(self) -> tuple[HeldKey, ...]:
        """Every key held, least recently used first."""
        return tuple(self._held.values())
