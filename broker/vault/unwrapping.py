"""Ask the KMS keys of a need one after the other until one answers, and check what it answered.

Remembering answers does not live here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from broker.vault.counters import VaultCounters
from broker.vault.data_keys import is_committed
from broker.vault.failures import FailureKind, KeyFailure
from broker.vault.gate import KmsGate
from broker.vault.needs import Need
from kms.errors import Corrupt, Denied, Disabled, KmsError, Unavailable
from kms.port import Wrap
from storage.records import WrapRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Unwrapped:
    """A data key, and the KMS key that gave it."""

    key: bytearray = field(repr=False)
    kms_key: str


class Unwrapper:
    """Unwraps data keys through the gates.

    A refusal is an answer: it ends the search, so that disabling the first key of a keyring is felt, and not
    undone by the second. A key that does not answer, and a wrap that is damaged, are passed over.
    alarm: told of every damaged wrap, also when another one served, and of every refusal to the broker itself.
    """

    def __init__(
        self, *, gates: Mapping[str, KmsGate], counters: VaultCounters, alarm: Callable[[KeyFailure], None]
    ) -> None:
        self._gates = gates
        self._counters = counters
        self._alarm = alarm

    async def unwrap(self, need: Need) -> Unwrapped | KeyFailure:
        """The key, committed to by its record, or why not. Raises nothing but CancelledError."""
        silent: KeyFailure | None = None
        damaged: KeyFailure | None = None
        for wrap in need.wraps:
            answer = await self._ask(need, wrap)
            if isinstance(answer, Unwrapped):
                self._counters.unwraps["ok"] += 1
                return answer
            self._counters.unwraps[answer.kind.value] += 1
            if answer.kind is FailureKind.UNAVAILABLE:
                silent = answer
            elif answer.kind is FailureKind.CORRUPT:
                damaged = answer
                self._alarm(answer)
            else:
                if answer.kind is not FailureKind.CALLER_DENIED:
                    self._alarm(answer)
                return answer
        # While one key has not answered, nobody knows that all wraps are damaged.
        return silent or damaged or need.failure(FailureKind.DENIED, reason="no_kms_key", detail="there is no wrap")

    async def _ask(self, need: Need, wrap: WrapRecord) -> Unwrapped | KeyFailure:
        uri = wrap.kms_key
        try:
            asked = Wrap(key_version=wrap.key_version, blob=wrap.blob)
            key = bytearray(await self._gates[uri].unwrap(asked, need.context, need.caller))
        except KmsError as error:
            return need.failure(_kind(error, need), reason=error.code, detail=str(error), kms_key=uri)
        record = need.record
        if is_committed(key, record.commitment, cluster_id=need.cluster_id, keyring=record.keyring, data_key=record.id):
            return Unwrapped(key=key, kms_key=uri)
        key[:] = bytes(len(key))
        detail = "the KMS gave a key that the row does not commit to: the wrap is that of another data key"
        return need.failure(FailureKind.CORRUPT, reason="commitment", detail=detail, kms_key=uri)


def _kind(error: KmsError, need: Need) -> FailureKind:
    """What follows from `error`; a refusal, unless it is known to be something else."""
    match error:
        case Unavailable():
            return FailureKind.UNAVAILABLE
        case Corrupt():
            return FailureKind.CORRUPT
        case Disabled():
            return FailureKind.DISABLED
        case Denied() if need.caller is not None:
            return FailureKind.CALLER_DENIED
        case _:
            return FailureKind.DENIED
