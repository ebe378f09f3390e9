"""What is remembered of a failure, for how long, and how much at most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.vault.errors import KeyCorrupt, KeyUnavailable
from broker.vault.failures import FailureKind, FailureMemory, KeyFailure


def failure(kind: FailureKind = FailureKind.UNAVAILABLE) -> KeyFailure:
    return KeyFailure(kind=kind, keyring="r", data_key="dk", kms_key="local:somewhere", reason="why", detail="said")


def memory(jitter: float = 0.5, entries_max: int = 10) -> FailureMemory:
    return FailureMemory(base_s=0.1, max_s=5, entries_max=entries_max, jitter=lambda: jitter)


@given(times=st.integers(1, 100), jitter=st.floats(0, 1, exclude_max=True))
def test_a_failure_is_remembered_between_its_bounds(times: int, jitter: float) -> None:
    """However often in a row: never for less than base_s, never for more than base_s + max_s."""
    remembering = memory(jitter)
    for _ in range(times):
        remembering.remember(b"key", failure(), 0.0)
    assert isinstance(remembering.recall(b"key", 0.0999), KeyUnavailable)
    assert remembering.recall(b"key", 5.1) is None


def test_success_forgets_how_often_it_failed() -> None:
    """After an answer, the next failure counts as the first."""
    remembering = memory(jitter=0.999)
    for _ in range(10):
        remembering.remember(b"key", failure(), 0.0)
    remembering.forget(b"key")
    remembering.remember(b"key", failure(), 0.0)
    assert remembering.recall(b"key", 0.2) is None


def test_a_corrupt_key_is_remembered_for_good() -> None:
    """No time heals it, sweeping leaves it, clearing ends it."""
    remembering = memory()
    remembering.remember(b"key", failure(FailureKind.CORRUPT), 0.0)
    remembering.sweep(1e9)
    assert isinstance(remembering.recall(b"key", 1e9), KeyCorrupt)
    remembering.clear()
    assert remembering.recall(b"key", 0.0) is None


def test_the_memory_is_bounded() -> None:
    """Beyond entries_max the failure recorded longest ago is forgotten."""
    remembering = memory(entries_max=3)
    for key in (b"1", b"2", b"3", b"1", b"4"):
        remembering.remember(key, failure(), 0.0)
    assert len(remembering) == 3
    assert [remembering.recall(key, 0.0) is None for key in (b"1", b"2", b"3", b"4")] == [False, True, False, False]


def test_sweeping_forgets_what_is_long_over() -> None:
    """What no longer counts as "in a row" takes no memory."""
    remembering = memory()
    remembering.remember(b"key", failure(), 0.0)
    remembering.sweep(5.0)
    assert len(remembering) == 1
    remembering.sweep(5.3)
    assert len(remembering) == 0


def test_an_error_carries_the_facts_and_not_the_kms_key_in_its_message() -> None:
    """Operators find KMS key and reason as attributes; the message that may reach a worker names neither."""
    error = failure().error(retry_after_s=3.0)
    assert isinstance(error, KeyUnavailable)
    assert (error.data_key, error.kms_key, error.reason, error.retry_after_s) == ("dk", "local:somewhere", "why", 3.0)
    assert "said" not in error.message
    assert "somewhere" not in error.message
    assert "dk" in error.message
