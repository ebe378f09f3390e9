"""`tokenbroker token`: names, versions and stages of tokens. Storing values is in `token_put` and `token_batch`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from broker.api.views.tokens import AskReveal, Revealed, Token, TokenVersion
from broker.cli.client import Query
from broker.cli.operating import Operator, group, operated
from broker.cli.output import Column
from broker.cli.rollout import app as rollout
from broker.cli.token_pool import app as pool
from broker.cli.token_put import put
from broker.policy.names import parse_token_name
from broker.rotation.rollouts import percent
from tokenbroker_client.wire import Encoding, decode_value

app = group("Seal tokens and say which version is current.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Such as github/ci-bot.")]
Version = Annotated[int, typer.Argument(metavar="VERSION", min=1)]

operated(
    app,
    "put",
    'printf %s "$SECRET" | tokenbroker token put github/ci-bot --label team=ci',
    "tokenbroker token put db/main --file ./password --stage pending",
    "tokenbroker token put --batch tokens.jsonl",
)(put)


@operated(app, "list", "tokenbroker token list --prefix github/")
async def list_tokens(
    operator: Operator,
    prefix: Annotated[str | None, typer.Option(metavar="P", help="Only names that begin so.")] = None,
) -> None:
    """List tokens, without their values."""
    query: Query = {"prefix": prefix}
    tokens = await operator.client.every("/v1/tokens", Token, query)
    operator.out.listing(
        tokens,
        tokens,
        Column("token", lambda token: token.token),
        Column("kind", lambda token: token.kind),
        Column("current", lambda token: token.current or None),
        Column("latest", lambda token: token.latest),
        Column("keyring", lambda token: token.keyring),
        Column("disabled", lambda token: token.disabled),
        Column("labels", lambda token: token.labels),
        Column("updated", lambda token: token.updated_at),
        nothing="no tokens yet; store one with `tokenbroker token put NAME`",
    )


@operated(app, "show", "tokenbroker token show github/ci-bot")
async def show(operator: Operator, name: Name) -> None:
    """Show one token, without its value."""
    token = await operator.client.get(path_of(name), Token)
    operator.out.details(
        token,
        {
            "token": token.token,
            "kind": token.kind,
            "current": token.current or None,
            "previous": token.previous or None,
            "latest": token.latest,
            **({"rolled out": f"{token.rollout}, to {percent(token.rollout_share)}"} if token.rollout else {}),
            "keyring": token.keyring,
            "disabled": token.disabled,
            "labels": token.labels,
            "previous valid": f"{token.previous_valid_s} s" if token.previous_valid_s else None,
            "created": token.created_at,
            "updated": token.updated_at,
        },
    )


@operated(app, "versions", "tokenbroker token versions github/ci-bot")
async def versions(operator: Operator, name: Name) -> None:
    """List the versions of a token, newest first, without their values."""
    found = await operator.client.every(f"{path_of(name)}/-/versions", TokenVersion)
    operator.out.listing(
        found,
        found,
        Column("version", lambda version: version.version),
        Column("stage", lambda version: version.stage),
        Column("content type", lambda version: version.content_type),
        Column("data key", lambda version: version.data_key),
        Column("created", lambda version: version.created_at),
        Column("by", lambda version: version.created_by),
        nothing="no versions",
    )


@operated(app, "promote", "tokenbroker token promote github/ci-bot 4")
async def promote(operator: Operator, name: Name, version: Version) -> None:
    """Make a version current; workers that hold the token get it at once."""
    await _staged(operator, name, version, "promote")


@operated(app, "rollback", "tokenbroker token rollback github/ci-bot")
async def rollback(operator: Operator, name: Name) -> None:
    """Make the previous version current again; workers that hold the token get it at once."""
    _say(operator, await operator.client.post(f"{path_of(name)}/-/rollback", TokenVersion))


app.add_typer(rollout, name="rollout")
app.add_typer(pool, name="pool")


@operated(app, "retire", "tokenbroker token retire github/ci-bot 3")
async def retire(operator: Operator, name: Name, version: Version) -> None:
    """Let a version that is not current be leased to nobody; it can be promoted again."""
    await _staged(operator, name, version, "retire")


@operated(app, "destroy", "tokenbroker token destroy github/ci-bot 2")
async def destroy(operator: Operator, name: Name, version: Version) -> None:
    """Erase the value of a version that is not current, for good."""
    await _staged(operator, name, version, "destroy")


@operated(app, "disable", "tokenbroker token disable github/ci-bot")
async def disable(operator: Operator, name: Name) -> None:
    """Let nobody lease the token; its leases are revoked."""
    await _switched(operator, name, "disable")


@operated(app, "enable", "tokenbroker token enable github/ci-bot")
async def enable(operator: Operator, name: Name) -> None:
    """Let it be leased again."""
    await _switched(operator, name, "enable")


@operated(app, "delete", "tokenbroker token delete github/ci-bot")
async def delete(operator: Operator, name: Name) -> None:
    """Delete a token with all its versions, for good; its leases are revoked."""
    await operator.client.delete(path_of(name))
    operator.out.fact({"token": name, "deleted": True}, f"{name} is deleted")


@operated(app, "reveal", "tokenbroker token reveal github/ci-bot > value")
async def reveal(
    operator: Operator,
    name: Name,
    version: Annotated[int | None, typer.Option(metavar="VERSION", min=1, help="Instead of the current one.")] = None,
) -> None:
    """Print a value, which is recorded in the audit log first. A broker may have this switched off."""
    revealed = await operator.client.post(f"{path_of(name)}/-/reveal", Revealed, AskReveal(version=version))
    if operator.out.json:
        operator.out.fact(revealed)
        return
    sys.stdout.buffer.write(decode_value(revealed.value, Encoding(revealed.encoding)))
    if sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def path_of(name: str) -> str:
    """Where the token is in the API. BadRequest: it is no token name, so it must not become a path."""
    return f"/v1/tokens/{parse_token_name(name)}"


async def _staged(operator: Operator, name: str, version: int, verb: str) -> None:
    _say(operator, await operator.client.post(f"{path_of(name)}/-/versions/{version}/{verb}", TokenVersion))


def _say(operator: Operator, done: TokenVersion) -> None:
    document = {"token": done.token, "version": done.version, "stage": done.stage}
    operator.out.fact(document, f"{done.token} version {done.version} is {done.stage}")


async def _switched(operator: Operator, name: str, verb: str) -> None:
    token = await operator.client.post(f"{path_of(name)}/-/{verb}", Token)
    operator.out.fact(token, f"{token.token} is {'disabled' if token.disabled else 'enabled'}")
