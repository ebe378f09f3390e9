"""How long leases last, for any grant, worker and moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.leases.terms import ended, extended, first_terms, next_terms
from storage.records import GrantRecord, LeaseRecord, WorkerRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = st.floats(0.001, 31 * 86400)
ENDS = st.one_of(st.none(), st.floats(0.001, 31 * 86400).map(lambda s: NOW + timedelta(seconds=s)))


@st.composite
def grants(draw: Any) -> GrantRecord:
    ttl_s = draw(st.integers(1, 86400))
    return GrantRecord(
        id="g",
        subject="worker:w",
        pattern="**",
        ttl_s=ttl_s,
        max_ttl_s=draw(st.integers(ttl_s, 31 * 86400)),
        source_cidrs=(),
        windows=(),
        created_by="root",
        created_at=NOW,
        expires_at=draw(ENDS),
    )


@st.composite
def workers(draw: Any) -> WorkerRecord:
    return WorkerRecord(
        name="w",
        groups=(),
        auth="ed25519",
        keys=(),
        labels={},
        single_session=False,
        disabled=False,
        created_at=NOW,
        expires_at=draw(ENDS),
    )


@given(grants(), workers(), st.one_of(st.none(), SECONDS))
def test_a_first_lease_has_the_least_of_all_bounds(
    grant: GrantRecord, worker: WorkerRecord, asked_s: float | None
) -> None:
    """Asked for or default, the grant's maximum, its end, the worker's end; and never nothing."""
    terms = first_terms(grant, worker, NOW, asked_s)
    ends = [end for end in (grant.expires_at, worker.expires_at) if end is not None]
    most = min([NOW + timedelta(seconds=grant.max_ttl_s), *ends])
    assert terms.max_expires_at == most
    assert terms.expires_at == min(NOW + timedelta(seconds=asked_s or grant.ttl_s), most)
    assert 0 < terms.left_s <= terms.max_left_s
    assert terms.left_s == (terms.expires_at - NOW).total_seconds()


@given(st.tuples(grants(), workers()), st.tuples(grants(), workers()), st.floats(0, 1), SECONDS)
def test_an_extension_never_passes_a_ceiling_and_never_is_negative(
    before: tuple[GrantRecord, WorkerRecord], later: tuple[GrantRecord, WorkerRecord], part: float, ttl_s: float
) -> None:
    """Under whatever grant it is extended, a live lease keeps to its first ceiling, and has time left."""
    grant, worker = before
    first = first_terms(grant, worker, NOW, None)
    record = lease(first.expires_at, first.max_expires_at)
    now = NOW + timedelta(seconds=first.left_s * part * 0.99)
    terms = next_terms(record, grant=later[0], worker=later[1], now=now, ttl_s=ttl_s)
    after = extended(record, terms, grant="other")
    assert now < after.expires_at <= record.max_expires_at
    assert after.max_expires_at == record.max_expires_at
    assert (after.rev, after.grant, after.due_at) == (2, "other", after.expires_at)
    assert terms.left_s > 0


def lease(expires_at: datetime, max_expires_at: datetime) -> LeaseRecord:
    return LeaseRecord(
        lease="l",
        token="t",
        version=1,
        worker="w",
        session="s",
        instance="i",
        grant="g",
        state="live",
        ttl_s=1.0,
        granted_at=NOW,
        expires_at=expires_at,
        max_expires_at=max_expires_at,
        due_at=expires_at,
    )


def test_an_ended_lease_is_due_no_more_and_is_kept_for_its_time() -> None:
    """The expiry sweeper does not find it again; pruning does, when it was kept long enough."""
    row = ended(lease(NOW, NOW), state="revoked", reason="leak", now=NOW, retention_s=60.0)
    assert (row.state, row.reason, row.due_at, row.ended_at) == ("revoked", "leak", None, NOW)
    assert row.prune_at == NOW + timedelta(seconds=60)
    assert row.rev == 2
