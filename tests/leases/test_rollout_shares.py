"""Who has which version while one is rolled out: the same on every replica, and both for whoever leases both."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Tampered
from broker.leases.heads import Head, Heads
from broker.leases.shares import BUCKETS, bucket
from storage.memory import open_memory
from storage.port import Commit
from storage.records import TokenRecord, VersionRecord
from storage.records.leases import LeaseStage

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rollout_buckets.json").read_text())
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
STAGES: tuple[LeaseStage, ...] = ("current", "previous")


def token(share: int, **changed: Any) -> TokenRecord:
    """A token whose version 3 is on its way, beside 2 and 1."""
    record = TokenRecord(
        name="t",
        keyring="default",
        labels={},
        disabled=False,
        current=2,
        previous=1,
        latest=3,
        rollout=3,
        rollout_share=share,
        previous_valid_s=0,
        created_at=NOW,
        updated_at=NOW,
    )
    return msgspec.structs.replace(record, **changed)


def version(number: int, name: str = "t") -> VersionRecord:
    return VersionRecord(
        token=name,
        version=number,
        stage="pending",
        content_type="text/plain",
        keyring="default",
        data_key="k",
        fmt=1,
        sealed=b"sealed",
        created_at=NOW,
        created_by="root",
    )


def head_of(share: int, **changed: Any) -> Head:
    return Head(token(share, **changed), version(2), version(1), version(3))


def numbers(head: Head, worker: str) -> tuple[int | None, ...]:
    found = [head.leasable(stage, worker) for stage in STAGES]
    return tuple(None if version is None else version.version for version in found)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["worker"]))
def test_buckets_are_as_the_specification_says(vector: dict[str, Any]) -> None:
    """Another implementation, and another release, finds the same place."""
    assert bucket(vector["token"], vector["worker"], vector["version"]) == vector["bucket"]


@given(NAMES, NAMES, st.integers(1, 100))
def test_a_place_is_one_of_ten_thousand(token: str, worker: str, version: int) -> None:
    """Whatever is rolled out to whom."""
    assert 0 <= bucket(token, worker, version) < BUCKETS


def test_shares_are_met_roughly_and_differ_between_versions() -> None:
    """5 % of many workers is about 5 %, and the next version does not try the same ones first."""
    first = {number for number in range(4000) if bucket("t", f"w-{number}", 2) < 500}
    then = {number for number in range(4000) if bucket("t", f"w-{number}", 3) < 500}
    assert 140 < len(first) < 260
    assert len(first & then) < 40


@given(NAMES, st.integers(0, BUCKETS))
def test_during_a_rollout_a_worker_may_lease_both_versions(worker: str, share: int) -> None:
    """The one that is its own as current, the other as previous; the former previous one is nobody's."""
    mine, other = numbers(head_of(share), worker)
    assert {mine, other} == {2, 3}
    assert (mine == 3) is (bucket("t", worker, 3) < share)


async def test_a_head_has_the_version_that_is_rolled_out() -> None:
    """Verified like the others; without a rollout the stages are as ever."""
    async with open_memory("memory:") as storage:
        tokens = [token(BUCKETS), token(0, name="u", rollout=0)]
        versions = [version(number, each.name) for each in tokens for number in (1, 2, 3)]
        await storage.commit(Commit(inserts=[*tokens, *versions]))
        verified: list[Any] = []
        heads = Heads(storage=storage, verify=verified.append, bound=10)
        await heads.load(["t", "u"])
        found = {name: head for name, head in heads.known.items() if head is not None}
        assert numbers(found["t"], "w") == (3, 2)
        assert numbers(found["u"], "w") == (2, 1)
        assert ("t", 3) in {record.key for record in verified}


async def test_a_version_that_is_rolled_out_and_missing_is_tampering() -> None:
    """Nobody is served from such a token."""
    async with open_memory("memory:") as storage:
        await storage.commit(Commit(inserts=[token(500), version(1), version(2)]))
        heads = Heads(storage=storage, verify=lambda _: None, bound=10)
        with pytest.raises(Tampered, match="rolled out version 3 is missing"):
            await heads.load(["t"])


def test_a_disabled_token_is_leased_in_no_stage_during_a_rollout() -> None:
    """The kill switch comes first."""
    assert numbers(head_of(5000, disabled=True), "w") == (None, None)
