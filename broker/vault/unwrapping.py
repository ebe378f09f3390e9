"""Ask the KMS keys of a need one after the other until one gives the key, check it, and sum up what they said.

What follows for cached keys does not live here: `key_cache` has the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from broker.vault.counters import VaultCounters
from broker.vault.data_keys import is_committed
from broker.vault.failures import FailureKind, KeyFailure
from broker.vault.gate import KmsGate
from broker.vault.needs import Need
from kms.errors import Corrupt, Denied, Disabled, KmsError, Unavailable
from kms.port import Wrap
from storage.records import WrapRecord

REFUSALS = frozenset({FailureKind.DENIED, FailureKind.DISABLED, FailureKind.CALLER_DENIED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Unwrapped:
    """A data key, and the KMS key that gave it."""

    key: bytearray = field(repr=False)
    kms_key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What asking came to. given: the data key, or the one failure that all answers together amount to.

    failures: what each KMS key said that was asked and gave nothing, in the order of asking, also when another gave.
    """

    given: Unwrapped | KeyFailure
    failures: tuple[KeyFailure, ...] = ()

    def serves_on(self, kms_key: str) -> bool:
        """Whether what this KMS key gave before may outlive this: it was silent, and has refused nothing here."""
        said = {failure.kind for failure in self.failures if failure.kms_key == kms_key}
        return FailureKind.UNAVAILABLE in said and said.isdisjoint(REFUSALS)


class Unwrapper:
    """Unwraps data keys through the gates.

    Whatever a KMS key says instead of a key, the next one is asked, so that the loss of one costs nothing; for the
    broker a refusal, too, may be such a loss (a closed account). On behalf of a caller a refusal is final: asking on
    until some KMS agrees would make the most lenient policy the rule.
    alarm: told of every damaged wrap, also when another one served, and of every refusal to the broker itself.
    """

    def __init__(
        self, *, gates: Mapping[str, KmsGate], counters: VaultCounters, alarm: Callable[[KeyFailure], None]
    ) -> None:
        self._gates = gates
        self._counters = counters
        self._alarm = alarm

    async def unwrap(self, need: Need) -> Asked:
        """The key, committed to by its record, or why not. Raises nothing but CancelledError."""
        failures: list[KeyFailure] = []
        for wrap in need.wraps:
            answer = await self._ask(need, wrap)
            if isinstance(answer, Unwrapped):
                self._count("ok", wrap)
                return Asked(given=answer, failures=tuple(failures))
            self._count(answer.kind.value, wrap)
            failures.append(answer)
            if answer.kind not in {FailureKind.UNAVAILABLE, FailureKind.CALLER_DENIED}:
                self._alarm(answer)
            if need.caller is not None and answer.kind in REFUSALS:
                return Asked(given=answer, failures=tuple(failures))
        return Asked(given=_sum(failures) or _no_wrap(need), failures=tuple(failures))

    async def _ask(self, need: Need, wrap: WrapRecord) -> Unwrapped | KeyFailure:
        uri = wrap.kms_key
        gate = self._gates.get(uri)
        if gate is None:
            detail = f"{uri}: it has just been taken out of the configuration"
            return need.failure(FailureKind.UNAVAILABLE, reason="no_kms_key", detail=detail, kms_key=uri)
        try:
            asked = Wrap(key_version=wrap.key_version, blob=wrap.blob)
            key = bytearray(await gate.unwrap(asked, need.context, need.caller))
        except KmsError as error:
            return need.failure(_kind(error, need), reason=error.code, detail=str(error), kms_key=uri)
        record = need.record
        if is_committed(key, record.commitment, cluster_id=need.cluster_id, keyring=record.keyring, data_key=record.id):
            return Unwrapped(key=key, kms_key=uri)
        key[:] = bytes(len(key))
        detail = "the KMS gave a key that the row does not commit to: the wrap is that of another data key"
        return need.failure(FailureKind.CORRUPT, reason="commitment", detail=detail, kms_key=uri)

    def _count(self, kind: str, wrap: WrapRecord) -> None:
        name = (kind, wrap.kms_key)
        self._counters.unwraps[name] = self._counters.unwraps.get(name, 0) + 1


def _sum(failures: Iterable[KeyFailure]) -> KeyFailure | None:
    """What they amount to: while one is silent, try later; else refused, if one refused; else damaged. The last one
    of the kind that counts speaks for all."""
    silent = refused = damaged = None
    for failure in failures:
        if failure.kind is FailureKind.UNAVAILABLE:
            silent = failure
        elif failure.kind is FailureKind.CORRUPT:
            damaged = failure
        else:
            refused = failure
    return silent or refused or damaged


def _no_wrap(need: Need) -> KeyFailure:
    return need.failure(FailureKind.DENIED, reason="no_kms_key", detail="there is no wrap")


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
