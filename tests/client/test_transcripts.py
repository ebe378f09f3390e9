"""Transcripts are pinned, and no two sets of fields share one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenbroker_client.transcript import enrolment_transcript, length_prefixed, session_transcript

VECTORS = Path(__file__).parent.parent / "vectors"
SESSIONS = json.loads((VECTORS / "session_transcript.json").read_text("utf-8"))["cases"]
ENROLMENTS = json.loads((VECTORS / "enrolment_transcript.json").read_text("utf-8"))["cases"]

# A busy machine makes slow inputs, which says nothing about the code.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("case", SESSIONS, ids=lambda case: case["name"])
def test_session_transcripts_are_pinned(case: dict[str, str]) -> None:
    """The published transcripts and signatures never change."""
    transcript = session_transcript(
        cluster_id=case["cluster_id"],
        worker=case["worker"],
        public_key=bytes.fromhex(case["public_key"]),
        client_nonce=bytes.fromhex(case["client_nonce"]),
        broker_nonce=bytes.fromhex(case["broker_nonce"]),
        channel_binding=bytes.fromhex(case["channel_binding"]),
    )
    assert transcript.hex() == case["transcript"]
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(case["private_seed"]))
    assert key.sign(transcript).hex() == case["signature"]


@pytest.mark.parametrize("case", ENROLMENTS, ids=lambda case: case["code_id"])
def test_enrolment_transcripts_are_pinned(case: dict[str, str]) -> None:
    """The published transcripts and signatures never change."""
    transcript = enrolment_transcript(code_id=case["code_id"], public_key=bytes.fromhex(case["public_key"]))
    assert transcript.hex() == case["transcript"]
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(case["private_seed"]))
    assert key.sign(transcript).hex() == case["signature"]


FIELDS = st.lists(st.binary(max_size=6), max_size=5)


@PATIENT
@given(FIELDS, FIELDS)
def test_the_prefixing_is_injective(left: list[bytes], right: list[bytes]) -> None:
    """Bytes cannot move from one field to the next without changing the transcript."""
    assert (length_prefixed(*left) == length_prefixed(*right)) == (left == right)


@pytest.mark.parametrize("field", ["public_key", "client_nonce", "broker_nonce", "channel_binding"])
def test_other_lengths_are_refused(field: str) -> None:
    """A short key, nonce or binding never reaches a signature."""
    fields = dict.fromkeys(("public_key", "client_nonce", "broker_nonce", "channel_binding"), bytes(32))
    fields[field] = bytes(31)
    with pytest.raises(ValueError, match=field):
        session_transcript(cluster_id="c", worker="w", **fields)
