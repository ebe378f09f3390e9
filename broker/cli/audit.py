"""`tokenbroker audit`: read the log, take it away, verify it, prove one entry. How is `broker.audit`.

`verify DIR` and `check` need no broker: they run where the auditor is.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from broker.api.views.audit import AskProof, AuditEntry, EntryProof, Verification
from broker.api.views.common import Listing
from broker.audit.errors import ProofBroken
from broker.audit.prove import check_proof
from broker.audit.verify import verify_export
from broker.cli.arriving import receive_folder, refuse_existing
from broker.cli.failures import VERIFICATION_FAILED, CommandFailed
from broker.cli.operating import Operator, ProfileFile, Url, ask, example, group, operated
from broker.cli.options import DataDir, Json
from broker.cli.output import Output, note, write_line

app = group("Read, export and verify the audit log.")

_VERIFY_S: Final = 580.0
"""How much longer than others a verification by the broker may take."""
_VKEY_BYTES_MAX: Final = 4096
_PROOF_BYTES_MAX: Final = 1024 * 1024
_WINDOW: Final = 1000
"""How many of the newest entries `tail --follow` looks through each second."""
_ENTRY: Final = re.compile(r"([0-9]{1,15})[:/]([0-9]{1,15})")

Vkey = Annotated[
    Path | None,
    typer.Option("--key", metavar="F", help="The verifier key that `init` wrote (audit.vkey), kept elsewhere."),
]


@operated(app, "tail", "tokenbroker audit tail --lines 50", "tokenbroker audit tail --follow")
async def tail(
    operator: Operator,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=1, max=1000, help="The newest N.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
) -> None:
    """Print the newest entries, oldest first, each with its place: LOG:NUMBER."""
    if follow and operator.out.json:
        raise typer.BadParameter("--follow never ends, so it is no JSON document")
    newest = await _newest(operator, _WINDOW if follow else lines)
    if operator.out.json:
        operator.out.fact(newest)
        return
    seen = {(entry.log, entry.seq) for entry in newest}
    _print(newest[-lines:])
    while follow:
        await asyncio.sleep(1.0)
        newest = [entry for entry in await _newest(operator, _WINDOW) if (entry.log, entry.seq) not in seen]
        _print(newest)
        # Only the window that is asked for can come again.
        seen = {*sorted(seen)[-_WINDOW:], *((entry.log, entry.seq) for entry in newest)}


@operated(app, "export", "tokenbroker audit export --out ./audit-2026-11")
async def export(
    operator: Operator,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make; it must not exist.")],
) -> None:
    """Write the whole log into a folder that anybody can verify without the broker."""
    refuse_existing(out)
    async with operator.client.download("GET", "/v1/audit/export") as chunks:
        files = await receive_folder(chunks, out)
    operator.out.fact({"export": str(out), "files": files}, f"{out}: {files} files; verify it with audit verify {out}")


@app.command(
    "verify",
    epilog=example("tokenbroker audit verify ./audit-2026-11 --key audit.vkey", "tokenbroker audit verify --live"),
)
def verify(
    *,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="An export; needs no broker.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Have the broker verify its database.")] = False,
    key: Vkey = None,
    anchors: Annotated[
        Path | None, typer.Option(metavar="F", help="Checkpoints that were kept outside the database.")
    ] = None,
    url: Url = None,
    profile: ProfileFile = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Verify the audit log: an export, or with --live the database. Exit code 3 when it does not verify."""
    if (folder is None) != live:
        raise typer.BadParameter("give either the folder of an export, or --live")
    if live:
        if key is not None or anchors is not None:
            raise typer.BadParameter("--key and --anchors are for the folder of an export")
        ask(_verify_live, url=url, profile=profile, data_dir=data_dir, as_json=as_json)
        return
    assert folder is not None, "checked above"
    vkey = None if key is None else _read(key, _VKEY_BYTES_MAX).decode(errors="replace").strip()
    if anchors is not None and not anchors.is_file():
        raise CommandFailed(f"there is no file {anchors} with anchored checkpoints")
    report = verify_export(folder, vkey, anchors=anchors)
    _tell(Output(json=as_json), Verification(**msgspec.structs.asdict(report)))


@operated(app, "prove", "tokenbroker audit prove 2:17 > proof.json")
async def prove(
    operator: Operator,
    entry: Annotated[str, typer.Argument(metavar="ENTRY", help="LOG:NUMBER, as `audit tail` shows it.")],
) -> None:
    """Print the proof that an entry is in the log: a JSON document that `audit check` verifies anywhere."""
    place = _ENTRY.fullmatch(entry)
    if place is None:
        raise typer.BadParameter("an entry is LOG:NUMBER, such as 2:17", param_hint="ENTRY")
    proof = await operator.client.post(
        "/v1/audit/prove", EntryProof, AskProof(log=int(place[1]), seq=int(place[2])), wait_s=_VERIFY_S
    )
    Output(json=True).fact(proof)


@app.command("check", epilog=example("tokenbroker audit check proof.json --key audit.vkey"))
def check(
    proof: Annotated[Path, typer.Argument(metavar="FILE", help="What `audit prove` printed.")],
    key: Annotated[Path, typer.Option("--key", metavar="F", help="The verifier key (audit.vkey).")],
    as_json: Json = False,
) -> None:
    """Verify the proof of one entry, without a broker, and print the entry. Exit code 3 when it does not hold."""
    out = Output(json=as_json)
    try:
        entry = check_proof(_read(proof, _PROOF_BYTES_MAX), _read(key, _VKEY_BYTES_MAX).decode(errors="replace"))
    except ProofBroken as error:
        out.fact({"ok": False, "problems": [error.message]}, f"NOT PROVED: {error.message}")
        raise typer.Exit(VERIFICATION_FAILED) from None
    text = msgspec.json.encode(entry).decode()
    out.fact({"ok": True, "problems": [], "entry": msgspec.Raw(text.encode())}, f"proved: {text}")


async def _verify_live(operator: Operator) -> None:
    _tell(operator.out, await operator.client.post("/v1/audit/verify", Verification, wait_s=_VERIFY_S))


def _tell(out: Output, report: Verification) -> None:
    """Print what was found. Exits with 3 when it does not verify."""
    counts = f"{report.entries} entries in {report.logs} logs, {report.checkpoints} signed checkpoints"
    verdict = f"VERIFIED: {counts}" if report.ok else f"DOES NOT VERIFY: {len(report.problems)} problems in {counts}"
    out.fact(
        report, verdict, *(f"problem: {text}" for text in report.problems), *(f"note: {text}" for text in report.notes)
    )
    if not report.ok:
        note("tokenbroker: the audit log does not verify; keep it, and compare it with a backup and the anchors")
        raise typer.Exit(VERIFICATION_FAILED)


async def _newest(operator: Operator, count: int) -> list[AuditEntry]:
    page = await operator.client.get("/v1/audit/entries", Listing[AuditEntry], {"limit": count})
    return page.items[::-1]


def _print(entries: list[AuditEntry]) -> None:
    for entry in entries:
        write_line(f"{entry.log}:{entry.seq} {bytes(entry.entry).decode()}")
    sys.stdout.flush()


def _read(path: Path, bytes_max: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise CommandFailed(f"{path} is larger than {bytes_max} bytes; it is not what it should be")
    return content
