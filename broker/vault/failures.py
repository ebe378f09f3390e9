"""Why a data key could not be had, as a fact that many waiters may be told and that is remembered for a moment.

An exception cannot serve here: raised in a thousand tasks, one instance collects a thousand tracebacks.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from broker.errors import BrokerError
from broker.vault.errors import CallerDenied, KeyCorrupt, KeyDenied, KeyUnavailable


class FailureKind(Enum):
    """What follows from a failure: only UNAVAILABLE leaves cached keys in use."""

    UNAVAILABLE = "unavailable"
    DENIED = "denied"
    DISABLED = "disabled"
    CALLER_DENIED = "caller_denied"
    CORRUPT = "corrupt"


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFailure:
    """One data key that could not be had. reason: a stable word for the audit log; detail: a sentence for operators."""

    kind: FailureKind
    keyring: str
    data_key: str
    kms_key: str
    reason: str
    detail: str

    def error(self, *, retry_after_s: float = 1.0) -> BrokerError:
        """A fresh exception that tells this failure."""
        key = f"data key {self.data_key!r} of keyring {self.keyring!r}"
        # What a KMS said is for operators; our own words about our own records are for whoever asked.
        why = "the operator finds the reason in the broker's log and status" if self.kms_key else self.detail
        error: KeyUnavailable | KeyDenied | CallerDenied | KeyCorrupt
        match self.kind:
            case FailureKind.UNAVAILABLE:
                error = KeyUnavailable(
                    f"{key} cannot be unwrapped now; retry later ({why})", retry_after_s=retry_after_s
                )
            case FailureKind.DENIED | FailureKind.DISABLED:
                text = f"{key} is refused: {why}"
                error = KeyDenied(text, retry_after_s=retry_after_s)
            case FailureKind.CALLER_DENIED:
                told = "that is in the audit log" if self.kms_key else self.detail
                error = CallerDenied(f"{key} is refused to this worker by its KMS: {told}")
            case FailureKind.CORRUPT:
                error = KeyCorrupt(f"{key} is not what was written ({why}); restore its row, then flush the keys")
        error.data_key, error.kms_key, error.reason = self.data_key, self.kms_key, self.reason
        return error


@dataclass(kw_only=True, slots=True)
class _Remembered:
    failure: KeyFailure
    times: int
    until: float


class FailureMemory:
    """The last failure of each key, so that a queue of requests does not fall upon a KMS that has just said no.

    The first failure is remembered for base_s to 2 base_s; each further one in a row may be remembered twice as
    long, never longer than base_s + max_s. Corrupt keys are remembered until `clear`. Holds at most entries_max
    failures; beyond, the one recorded longest ago goes.
    """

    def __init__(self, *, base_s: float, max_s: float, entries_max: int, jitter: Callable[[], float]) -> None:
        self._base_s = base_s
        self._max_s = max_s
        self._entries_max = entries_max
        self._jitter = jitter
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._remembered)

    def remember(self, key: bytes, failure: KeyFailure, now: float) -> None:
        """Record that asking for `key` has failed at `now`."""
        before = self._remembered.pop(key, None)
        times = before.times + 1 if before is not None else 1
        spread = min(self._max_s, self._base_s * 2.0 ** min(times - 1, 32))
        until = math.inf if failure.kind is FailureKind.CORRUPT else now + self._base_s + self._jitter() * spread
        self._remembered[key] = _Remembered(failure=failure, times=times, until=until)
        if len(self._remembered) > self._entries_max:
            self._remembered.popitem(last=False)

    def recall(self, key: bytes, now: float) -> BrokerError | None:
        """A fresh exception if asking for `key` failed so lately that it must not be asked again at `now`."""
        remembered = self._remembered.get(key)
        if remembered is None or now >= remembered.until:
            return None
        return remembered.failure.error(retry_after_s=min(remembered.until - now, self._max_s))

    def forget(self, key: bytes) -> None:
        """Asking for `key` has succeeded."""
        self._remembered.pop(key, None)

    def sweep(self, now: float) -> None:
        """Forget what ended longer ago than a further failure would be counted as "in a row"."""
        horizon = now - self._base_s - self._max_s
        for key in [key for key, remembered in self._remembered.items() if remembered.until < horizon]:
            del self._remembered[key]

    def clear(self) -> None:
        """Forget everything, corrupt keys included."""
        self._remembered.clear()
