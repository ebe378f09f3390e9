"""`tokenbroker token put`: store one value. Many at once are in `token_batch`."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from msgspec import UNSET

from broker.api.views.tokens import PutVersion, TokenVersion
from broker.cli.operating import Operator
from broker.cli.options import read_labels, read_span, span_seconds
from broker.cli.values import read_value
from broker.policy.names import parse_token_name
from tokenbroker_client.wire import encode_value


class PutStage(StrEnum):
    """What a fresh version may be."""

    CURRENT = "current"
    PENDING = "pending"


async def put(
    operator: Operator,
    *,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Such as github/ci-bot.")] = None,
    file: Annotated[Path | None, typer.Option("--file", metavar="F", help="Read the value from a file.")] = None,
    env: Annotated[str | None, typer.Option("--env", metavar="VAR", help="Read it from this variable.")] = None,
    stage: Annotated[PutStage, typer.Option(help="A pending version waits for `token promote`.")] = PutStage.CURRENT,
    content_type: Annotated[str | None, typer.Option(metavar="TYPE", help="Media type, such as text/plain.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="K=V", help="Replaces the token's labels.")] = None,
    keyring: Annotated[str | None, typer.Option(metavar="K", help="For a token's first version.")] = None,
    previous_valid: Annotated[
        timedelta | None,
        typer.Option(parser=read_span, metavar="SPAN", help="How long the issuer accepts the value before."),
    ] = None,
    batch: Annotated[
        Path | None, typer.Option("--batch", metavar="F", help="Many: one JSON object a line; - is standard input.")
    ] = None,
) -> None:
    """Store a value as the next version of a token, current at once. The value comes on standard input.

    With --batch each line of F is an object with `token`, and `value` or `value_b64`, and optionally `content_type`,
    `labels`, `keyring`, `stage`; each line gets a result, and one bad line never fails the rest.
    """
    if (name is None) == (batch is None):
        raise typer.BadParameter("give either a NAME or --batch F")
    if batch is not None:
        if file or env or content_type or label or keyring or previous_valid or stage is not PutStage.CURRENT:
            raise typer.BadParameter("with --batch, everything else stands in the lines of the file")
        from broker.cli.token_batch import put_batch  # noqa: PLC0415 - it draws a bar, which takes long to load

        await put_batch(operator, batch)
        return
    if file is not None and env is not None:
        raise typer.BadParameter("the value comes from one place: --file, --env, or standard input")
    path = f"/v1/tokens/{parse_token_name(name or '')}/-/versions"
    value, encoding = encode_value(read_value(file=file, variable=env))
    body = PutVersion(
        value=value if encoding == "utf8" else UNSET,
        value_b64=UNSET if encoding == "utf8" else value,
        stage="pending" if stage is PutStage.PENDING else "current",
        content_type=content_type,
        labels=read_labels(label) if label else None,
        keyring=keyring,
        previous_valid_s=span_seconds(previous_valid),
    )
    stored = await operator.client.create(path, TokenVersion, body)
    document = {"token": stored.token, "version": stored.version, "stage": stored.stage}
    operator.out.fact(document, f"{stored.token} version {stored.version} is {stored.stage}")
