"""Verification of whole audit logs, streaming and offline: of an export, or straight on a database.

Findings are collected, never answered with a bool on the way. The checks on one log are `broker.audit.logcheck`;
here is what holds between logs. A stranger's verifier is written from docs/spec/audit.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from broker.audit.anchored import read_anchors
from broker.audit.bundles import FORMAT, JSON_BYTES_MAX, ExportSource, Manifest, read_bounded
from broker.audit.checkpoint import Link, Origin, key_name
from broker.audit.encoding import decode
from broker.audit.entries import LogOpened
from broker.audit.errors import EntryBroken, LogBroken, NoteBroken, outside
from broker.audit.leasecheck import LeaseCheck
from broker.audit.logcheck import LogCheck, Successor
from broker.audit.note import Verifier, strict_base64
from broker.audit.pincheck import PinCheck
from broker.audit.report import Findings, Report
from broker.audit.source import READ_DEADLINE_S, LogFacts, Source, StorageSource
from broker.errors import BadRequest, NotFound, StartRefused
from storage.errors import Damaged
from storage.port import Storage
from storage.records import ManifestRecord
from storage.records.leases import LeaseRecord


def verify_export(root: Path, vkey: str | None = None, *, anchors: Path | None = None) -> Report:
    """Verify the export in the folder `root`. Blocks for its whole length: call it in a thread from async code.

    vkey: the pinned verifier key. None: the key that lies in the export, which proves only that one key signed all;
    the report says so. anchors: a file of checkpoints kept outside the database.
    BadRequest: `vkey` is no verifier key. NotFound: `root` is no folder.
    """
    if not root.is_dir():
        raise NotFound(f"{root.name} is no folder with an audit export")
    return asyncio.run(_verify_export(root, vkey, anchors))


async def verify_live(
    storage: Storage, *, vkey: str, leases: Iterable[LeaseRecord] = (), anchors: Path | None = None
) -> Report:
    """Verify every log in a database, which may be in use meanwhile.

    leases: rows read before this call; each must have its lease.granted entry. They are held in memory. Manifests of
    authority tables must not be behind the newest pins; their MACs are checked by `broker.authority`.
    BadRequest: `vkey` is no verifier key. Unavailable: storage cannot serve.
    """
    findings = Findings()
    verifier = _pinned(vkey)
    check = LeaseCheck(rows=leases, findings=findings)
    anchored: Mapping[int, Sequence[Link]] = {}
    if anchors is not None:
        anchored = await asyncio.to_thread(read_anchors, anchors, verifier=verifier, findings=findings)
    source = StorageSource(storage=storage)
    pins = PinCheck(findings=findings)
    await _verify(
        source, verifier, findings=findings, leases=check, pins=pins, anchored=anchored, complete=True, grows=True
    )
    check.finish()
    await _finish_pins(pins, storage, findings)
    return findings.report()


async def _verify_export(root: Path, vkey: str | None, anchors: Path | None) -> Report:
    findings = Findings()
    pinned = None if vkey is None else _pinned(vkey)
    manifest = _manifest(root, findings)
    verifier = _own_key(root, pinned, findings)
    if manifest is None or verifier is None:
        return findings.report()
    if manifest.cluster != verifier.name.removesuffix("/audit"):
        findings.problem(f"export.json is of cluster {manifest.cluster}, the key is of {verifier.name}")
    anchored = read_anchors(anchors, verifier=verifier, findings=findings) if anchors is not None else {}
    source = ExportSource(root=root)
    facts = await _verify(
        source,
        verifier,
        findings=findings,
        leases=LeaseCheck(rows=(), findings=findings),
        pins=PinCheck(findings=findings),
        anchored=anchored,
        complete=manifest.complete,
        grows=False,
    )
    for fault in source.faults:
        findings.problem(fault)
    for log in sorted(set(manifest.logs) - {known.log for known in facts}):
        findings.problem(f"log {log}: export.json names it, but it is not here")
    return findings.report()


async def _finish_pins(pins: PinCheck, storage: Storage, findings: Findings) -> None:
    """Manifests are read last: whatever has been pinned was in them before."""
    async with outside(deadline_s=READ_DEADLINE_S):
        try:
            page = await storage.select(ManifestRecord)
        except Damaged as error:
            findings.problem(str(error))
            return
    pins.finish(page.records)


def _pinned(vkey: str) -> Verifier:
    try:
        return Verifier(vkey)
    except NoteBroken as error:
        raise BadRequest(f"the verifier key is unfit: {error.message}") from None


def _manifest(root: Path, findings: Findings) -> Manifest | None:
    try:
        manifest = msgspec.json.decode(read_bounded(root / "export.json", JSON_BYTES_MAX), type=Manifest)
    except (LogBroken, msgspec.MsgspecError, UnicodeDecodeError) as error:
        findings.problem(f"export.json is unfit: {error}")
        return None
    if manifest.format != FORMAT:
        findings.problem(f"export.json is of format {manifest.format}, this verifier knows {FORMAT}")
        return None
    return manifest


def _own_key(root: Path, pinned: Verifier | None, findings: Findings) -> Verifier | None:
    """The key to verify with: the pinned one; without it, the export's own."""
    try:
        own = Verifier(read_bounded(root / "vkey", JSON_BYTES_MAX).decode(errors="replace"))
    except (LogBroken, NoteBroken) as error:
        findings.problem(f"the export's vkey is unfit: {error.message}")
        return pinned
    if pinned is None:
        findings.note("no verifier key was given; the one in the export proves only that one key signed everything")
        return own
    if own.vkey != pinned.vkey:
        findings.problem("the export's vkey is not the key that was given")
    return pinned


async def _verify(
    source: Source,
    verifier: Verifier,
    *,
    findings: Findings,
    leases: LeaseCheck,
    pins: PinCheck,
    anchored: Mapping[int, Sequence[Link]],
    complete: bool,
    grows: bool,
) -> list[LogFacts]:
    """Every log of `source`, then what holds between them. grows: checkpoints may appear while it is read."""
    logs = await source.logs()
    findings.logs = len(logs)
    if not logs:
        findings.problem("there is no audit log at all")
    openings = {facts.log: await _opening(source, facts.log) for facts in logs}
    for facts in logs:
        _facts(facts, verifier, findings)
        opened = openings[facts.log]
        check = LogCheck(
            facts=facts,
            verifier=verifier,
            findings=findings,
            previous=_previous(opened),
            successors=_successors(facts, openings),
            anchored=anchored.get(facts.log, ()),
            leases=leases,
            pins=pins,
        )
        await _walk(source, facts, check, findings, grows=grows)
    _chain(logs, openings, findings, complete=complete)
    for log in sorted(set(anchored) - set(openings)):
        text = f"log {log}: an anchored checkpoint vouches for it, but it is not here"
        findings.problem(text) if complete else findings.note(text)
    return logs


async def _walk(source: Source, facts: LogFacts, check: LogCheck, findings: Findings, *, grows: bool) -> None:
    """Bring entries and checkpoints of one log together. The newest checkpoint is read first: see `export`."""
    newest = await source.newest_note(facts.log)
    notes = source.notes(facts.log)
    last: str | None = None
    count = 0
    more = True
    try:
        async for batch in source.batches(facts.log):
            while more and check.vouched < batch.first_seq + len(batch.entries):
                if (found := await anext(notes, None)) is None:
                    more = False
                else:
                    check.checkpoint(*found)
                    last, count = found[1], count + 1
            check.batch(batch)
        ceiling = max(check.size, (newest[0] or 0) if newest is not None else 0) if grows else None
        async for found in notes:
            if ceiling is not None and (found[0] or 0) > ceiling:
                break
            check.checkpoint(*found)
            last, count = found[1], count + 1
    except LogBroken as error:
        findings.problem(f"log {facts.log}: {error.message}")
    else:
        check.finish(ceiling)
    if not grows:
        if (newest[1] if newest is not None else None) != last:
            findings.problem(f"log {facts.log}: its file checkpoint is not the newest one of its file checkpoints")
        if facts.checkpoints is not None and facts.checkpoints != count:
            findings.problem(f"log {facts.log}: {facts.checkpoints} checkpoints were exported, {count} are here")
        for fault in facts.faults:
            findings.problem(f"log {facts.log}: {fault} (so it was in the database when exported)")


async def _opening(source: Source, log: int) -> LogOpened | None:
    """The first entry of a log, if it is what it should be; `LogCheck` complains if it is not."""
    async for batch in source.batches(log):
        if batch.first_seq == 0 and batch.entries:
            try:
                entry = decode(batch.entries[0])
            except EntryBroken:
                return None
            return entry if isinstance(entry, LogOpened) else None
        break
    return None


def _root(opened: LogOpened) -> bytes:
    try:
        return strict_base64(opened.previous_root)
    except NoteBroken:
        return b""


def _previous(opened: LogOpened | None) -> Link | None:
    if opened is None or not opened.previous:
        return None
    return Link(origin=opened.previous, size=opened.previous_size, root=_root(opened))


def _successors(facts: LogFacts, openings: Mapping[int, LogOpened | None]) -> list[Successor]:
    return [
        Successor(log, opened, _root(opened))
        for log, opened in openings.items()
        if opened is not None and opened.previous == facts.origin and log > facts.log
    ]


def _facts(facts: LogFacts, verifier: Verifier, findings: Findings) -> None:
    """What is said about a log beside its entries must be what its name and the key make it."""
    cluster = verifier.name.removesuffix("/audit")
    try:
        expected = Origin(cluster=cluster, instance=facts.instance, log=facts.log).text()
        if key_name(cluster) != verifier.name or facts.origin != expected:
            findings.problem(f"log {facts.log}: its origin is {facts.origin}, but should be {expected}")
    except StartRefused as error:
        findings.problem(f"log {facts.log}: {error.message}")
    if facts.public_key != verifier.public_key:
        findings.problem(f"log {facts.log}: its row names another signing key than {verifier.name}'s")


def _chain(
    logs: Sequence[LogFacts], openings: Mapping[int, LogOpened | None], findings: Findings, *, complete: bool
) -> None:
    """Numbers without gaps from 1; each log continues the newest earlier one of its instance."""
    origins = {facts.log: facts.origin for facts in logs}
    last_of: dict[str, int] = {}
    expected = 1
    for facts in logs:
        if complete and facts.log != expected:
            lost = f"log {expected} is" if facts.log - expected == 1 else f"logs {expected} to {facts.log - 1} are"
            findings.problem(f"{lost} missing")
        expected = facts.log + 1
        before = last_of.get(facts.instance, 0)
        last_of[facts.instance] = facts.log
        opened = openings[facts.log]
        if complete and facts.previous != before:
            findings.problem(f"log {facts.log}: its row says it continues log {facts.previous}, not log {before}")
        if opened is None:
            continue
        said = origins.get(facts.previous, "")
        if said != opened.previous and (complete or said):
            findings.problem(
                f"log {facts.log}, entry 0: it continues {opened.previous or 'no log'}, its row says {said or 'no log'}"
            )
        elif opened.previous and not said:
            findings.note(f"log {facts.log}: the log it continues, {opened.previous}, is not in this export")
