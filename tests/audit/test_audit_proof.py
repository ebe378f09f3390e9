"""Proof of one entry: made from a database or an export, checked with nothing but the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.audit.entries import LeaseGranted, LogClosed, LogOpened
from broker.audit.errors import ProofBroken
from broker.audit.export import export
from broker.audit.note import Signer
from broker.audit.prove import Proof, check_proof, prove
from broker.errors import NotFound

OTHER = Signer(name="cl-test/audit", seed=bytes([66]) * 32)


def text(proof: Proof) -> bytes:
    """The document as it is handed over."""
    return msgspec.json.encode(proof)


async def test_every_signed_entry_can_be_proved(history: Any, storage: Any, tmp_path: Path, vkey: str) -> None:
    """Each entry under a checkpoint has the same proof from database and export, and the proof gives the entry back."""
    await history()
    await export(storage, tmp_path / "export")
    kinds = []
    for seq in range(23):
        proof = await prove(storage, 1, seq)
        assert proof == await prove(tmp_path / "export", 1, seq)
        kinds.append(type(check_proof(text(proof), vkey)))
    assert kinds == [LogOpened, *([LeaseGranted] * 21), LogClosed]


async def test_entries_without_a_checkpoint_have_no_proof(history: Any, storage: Any) -> None:
    """An entry in an unsigned tail, one that is not there, and one of no log are not found."""
    await history()
    await prove(storage, 2, 6)
    for log, seq in ((2, 7), (1, 23), (1, -1), (9, 0)):
        with pytest.raises(NotFound):
            await prove(storage, log, seq)


async def test_altered_entries_cannot_be_proved(history: Any, storage: Any, tamper: Any) -> None:
    """When what is stored is not what was signed, no proof is made."""
    await history()
    tamper(
        "UPDATE audit_block SET entries = CAST(replace(CAST(entries AS TEXT), 'lease-1', 'lease-2') AS BLOB) "
        "WHERE log = 1 AND seq = 1"
    )
    with pytest.raises(ProofBroken):
        await prove(storage, 1, 3)


async def test_altered_proofs_are_refused(history: Any, storage: Any, vkey: str) -> None:
    """Whatever is changed in a proof, it proves nothing any more."""
    await history()
    proof = await prove(storage, 1, 3)
    other = await prove(storage, 1, 4)
    foreign = await prove(storage, 3, 3)
    check_proof(text(proof), vkey)
    for change in (
        {"entry": other.entry},
        {"entry": proof.entry.replace("lease-2", "lease-9")},
        {"entry": "{}"},
        {"index": 4},
        {"index": -1},
        {"log": 2},
        {"checkpoint": foreign.checkpoint},
        {"checkpoint": proof.checkpoint.replace("\n8\n", "\n9\n")},
        {"checkpoint": OTHER.sign(proof.checkpoint.rpartition("\n\n")[0] + "\n")},
        {"inclusion": proof.inclusion[:-1]},
        {"inclusion": (*proof.inclusion, proof.inclusion[0])},
        {"inclusion": ("AAAA", *proof.inclusion[1:])},
        {"inclusion": ("?", *proof.inclusion[1:])},
        {"format": "tokenbroker/audit-proof/v9"},
    ):
        with pytest.raises(ProofBroken):
            check_proof(text(msgspec.structs.replace(proof, **change)), vkey)
    for document in (b"", b"[]", b"\xff", b"{}", b" " * 2_000_000):
        with pytest.raises(ProofBroken):
            check_proof(document, vkey)
    with pytest.raises(ProofBroken):
        check_proof(text(proof), OTHER.vkey)
