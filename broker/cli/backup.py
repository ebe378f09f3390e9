"""`tokenbroker backup`: a copy of the database while it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from broker.cli.arriving import receive, refuse_existing
from broker.cli.operating import Operator, operated

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@operated(app, "backup", "tokenbroker backup --out ./tokenbroker-2026-11-22.backup")
async def backup(
    operator: Operator,
    out: Annotated[Path, typer.Option("--out", metavar="F", help="The file to write (mode 600); it must not exist.")],
) -> None:
    """Copy the whole database while it is in use. It opens nothing without the KMS: back the key up elsewhere."""
    refuse_existing(out)
    async with operator.client.download("POST", "/v1/backup") as chunks:
        size = await receive(chunks, out)
    operator.out.fact({"backup": str(out), "bytes": size}, f"{out}: {size} bytes")
