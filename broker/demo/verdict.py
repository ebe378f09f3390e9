"""What the demo promised, and whether it held."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """One promise."""

    promise: str
    held: bool
    seen: str


@dataclass(kw_only=True, slots=True)
class Verdict:
    """All promises so far."""

    judgements: list[Judgement] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether there is a promise, and each one held."""
        return bool(self.judgements) and all(judgement.held for judgement in self.judgements)

    def judge(self, promise: str, *, held: bool, seen: str) -> None:
        """Add one."""
        self.judgements.append(Judgement(promise=promise, held=held, seen=seen))
