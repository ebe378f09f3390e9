"""A proof that one entry is in a log, which a third party checks with nothing but the verifier key.

The document is JSON (docs/spec/audit.md, "Proof"): the entry, its number, a signed checkpoint and the Merkle path.
"""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec

from broker.audit.bundles import ExportSource
from broker.audit.checkpoint import Checkpoint, Link, Origin
from broker.audit.encoding import decode
from broker.audit.entries import Entry
from broker.audit.errors import EntryBroken, NoteBroken, ProofBroken
from broker.audit.note import Verifier, strict_base64
from broker.audit.source import Source, StorageSource
from broker.audit.tree import PathTracer, leaf_hash, verify_inclusion
from broker.errors import NotFound
from storage.port import Storage

FORMAT = "tokenbroker/audit-proof/v1"
PROOF_BYTES_MAX = 1024 * 1024


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """The document. entry: the exact text that was hashed. inclusion: Base64, from the leaf's sibling upwards."""

    format: str
    log: int
    index: int
    entry: str
    checkpoint: str
    inclusion: tuple[str, ...]


async def prove(where: Storage | Path, log: int, seq: int) -> Proof:
    """The proof for entry `seq` of `log`, from a database or an export, under the first checkpoint that covers it.

    Reads the log up to that checkpoint.
    NotFound: no such entry, or no checkpoint covers it yet. ProofBroken: what is stored is not what was signed.
    Unavailable: storage cannot serve.
    """
    source: Source = ExportSource(root=where) if isinstance(where, Path) else StorageSource(storage=where)
    note, head = await _covering(source, log, seq)
    tracer = PathTracer(seq)
    text = b""
    async for batch in source.batches(log):
        if batch.first_seq != tracer.size or batch.fault:
            break
        entries = batch.entries[: head.size - tracer.size]
        if tracer.size <= seq < tracer.size + len(entries):
            text = entries[seq - tracer.size]
        tracer.extend(leaf_hash(entry) for entry in entries)
        if tracer.size == head.size:
            break
    if not text:
        raise NotFound(f"log {log} has no readable entry {seq}")
    path = tracer.path()
    verify_inclusion(leaf=leaf_hash(text), index=seq, size=head.size, path=path, root=head.root)
    return Proof(
        format=FORMAT,
        log=log,
        index=seq,
        entry=text.decode(errors="replace"),
        checkpoint=note,
        inclusion=tuple(base64.b64encode(step).decode() for step in path),
    )


async def _covering(source: Source, log: int, seq: int) -> tuple[str, Link]:
    """The first checkpoint of more than `seq` entries. Its signature is for the one who checks the proof."""
    async for _, note in source.notes(log):
        try:
            head = Checkpoint.parse(note.rpartition("\n\n")[0] + "\n").head
        except NoteBroken:
            continue
        if head.size > seq >= 0:
            return note, head
    raise NotFound(
        f"no checkpoint of log {log} covers entry {seq}: there is no such entry, or it is younger than a second, "
        "or a crash came before its checkpoint"
    )


def check_proof(document: bytes | str, vkey: str) -> Entry:
    """The entry that `document` (JSON) proves to be in the log of the cluster that `vkey` belongs to.

    ProofBroken: malformed, of another cluster, not signed by that key, or the path does not lead to the root.
    """
    if len(document) > PROOF_BYTES_MAX:
        raise ProofBroken(f"the proof is longer than {PROOF_BYTES_MAX} bytes")
    try:
        proof = msgspec.json.decode(document, type=Proof)
        verifier = Verifier(vkey)
        head = Checkpoint.parse(verifier.open(proof.checkpoint)).head
        path = [strict_base64(step) for step in proof.inclusion]
        text = proof.entry.encode()
        entry = decode(text)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ProofBroken(f"the proof is malformed: {error}") from None
    except (NoteBroken, EntryBroken) as error:
        raise ProofBroken(f"the proof does not hold: {error.message}") from None
    if proof.format != FORMAT:
        raise ProofBroken(f"the proof is of format {proof.format}, this verifier knows {FORMAT}")
    origin = Origin.parse(head.origin)
    if origin.log != proof.log or not head.origin.startswith(f"{verifier.name}/"):
        raise ProofBroken(f"the checkpoint is of {head.origin}, not of log {proof.log} of {verifier.name}")
    verify_inclusion(leaf=leaf_hash(text), index=proof.index, size=head.size, path=path, root=head.root)
    return entry
