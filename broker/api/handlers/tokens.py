"""Operations on tokens. A name's slashes stand in the path; `/-/` ends the name, as no segment can be called so."""

from __future__ import annotations

from typing import Final

from broker.admin.asked import NewVersion
from broker.admin.batch import put_each
from broker.admin.put import Put
from broker.admin.roles import ADMINS, EVERYONE, OPERATORS
from broker.api.paging import PageQuery
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route
from broker.api.services import Services
from broker.api.views.common import Listing
from broker.api.views.tokens import (
    AskReveal,
    BatchDone,
    BatchItem,
    BatchResult,
    ChangeToken,
    PutBatch,
    PutVersion,
    Revealed,
    Token,
    TokenPath,
    TokenQuery,
    TokenVersion,
    VersionPath,
    batch_view,
    revealed_view,
    token_view,
    version_view,
)
from broker.errors import BrokerError
from storage.records import TokenRecord

_ONE: Final = "/v1/tokens/{token}"
_VERSION: Final = "/v1/tokens/{token}/-/versions/{version}"


async def list_tokens(services: Services, call: Call[Nothing, TokenQuery, Nothing]) -> Reply:
    """List the tokens."""
    pager = call.pager
    page = await services.book.tokens(prefix=call.query.prefix, after=pager.after, limit=pager.limit)
    return Reply(body=Listing(items=[token_view(record) for record in page.records], next=pager.next(page.next)))


async def show_token(services: Services, call: Call[TokenPath, Nothing, Nothing]) -> Reply:
    """Show one token."""
    return _token(await services.book.token(call.path.token))


async def change_token(services: Services, call: Call[TokenPath, Nothing, ChangeToken]) -> Reply:
    """Replace labels, or how long a former value stays valid upstream."""
    record = await services.tokens.describe(
        call.path.token,
        labels=call.body.labels,
        previous_valid_s=call.body.previous_valid_s,
        actor=call.actor,
        if_match=call.if_match,
    )
    return _token(record)


async def delete_token(services: Services, call: Call[TokenPath, Nothing, Nothing]) -> Reply:
    """Delete a token with all its versions."""
    await services.tokens.delete(call.path.token, actor=call.actor, if_match=call.if_match)
    return Reply()


async def disable_token(services: Services, call: Call[TokenPath, Nothing, Nothing]) -> Reply:
    """Disable a token: nobody may lease it."""
    return _token(await services.tokens.disable(call.path.token, actor=call.actor, if_match=call.if_match))


async def enable_token(services: Services, call: Call[TokenPath, Nothing, Nothing]) -> Reply:
    """Enable a token again."""
    return _token(await services.tokens.enable(call.path.token, actor=call.actor, if_match=call.if_match))


async def reveal_token(services: Services, call: Call[TokenPath, Nothing, AskReveal]) -> Reply:
    """Show a value, once that is on record."""
    revealed = await services.revealer.reveal(call.path.token, version=call.body.version, actor=call.actor)
    return Reply(body=revealed_view(revealed))


async def list_versions(services: Services, call: Call[TokenPath, PageQuery, Nothing]) -> Reply:
    """List a token's versions, newest first."""
    pager = call.pager
    page = await services.book.versions(call.path.token, after=pager.after, limit=pager.limit)
    return Reply(body=Listing(items=[version_view(record) for record in page.records], next=pager.next(page.next)))


async def put_version(services: Services, call: Call[TokenPath, Nothing, PutVersion]) -> Reply:
    """Store a value as the next version; the first one makes the token."""
    new = call.body.new_version(call.path.token)
    return _put(await services.putter.put(new, actor=call.actor, if_match=call.if_match, once=call.once), made=True)


async def put_version_again(services: Services, call: Call[TokenPath, Nothing, PutVersion], made: str) -> Reply:
    """Show the version that an earlier request of this key stored."""
    record = await services.book.version(call.path.token, int(made))
    token = await services.book.token(record.token)
    return Reply(body=version_view(record), rev=token.rev, location=_location(record.token, record.version))


async def put_many(services: Services, call: Call[Nothing, Nothing, PutBatch]) -> Reply:
    """Store many values, each on its own."""
    news = [_new_or_refusal(item) for item in call.body.items]
    stored = iter(
        await put_each(services.putter, [new for new in news if isinstance(new, NewVersion)], actor=call.actor)
    )
    results: list[BatchResult] = [
        batch_view(item.token, next(stored) if isinstance(new, NewVersion) else new)
        for item, new in zip(call.body.items, news, strict=True)
    ]
    return Reply(body=BatchDone(results=results))


async def show_version(services: Services, call: Call[VersionPath, Nothing, Nothing]) -> Reply:
    """Show one version, without its value."""
    record = await services.book.version(call.path.token, call.path.version)
    return Reply(body=version_view(record))


async def promote_version(services: Services, call: Call[VersionPath, Nothing, Nothing]) -> Reply:
    """Make a version current."""
    return _put(
        await services.tokens.promote(call.path.token, call.path.version, actor=call.actor, if_match=call.if_match)
    )


async def rollback_token(services: Services, call: Call[TokenPath, Nothing, Nothing]) -> Reply:
    """Make the previous version current again."""
    return _put(await services.tokens.rollback(call.path.token, actor=call.actor, if_match=call.if_match))


async def retire_version(services: Services, call: Call[VersionPath, Nothing, Nothing]) -> Reply:
    """Let a version that is not current be leased to nobody."""
    return _put(
        await services.tokens.retire(call.path.token, call.path.version, actor=call.actor, if_match=call.if_match)
    )


async def destroy_version(services: Services, call: Call[VersionPath, Nothing, Nothing]) -> Reply:
    """Empty a version for good."""
    return _put(
        await services.tokens.destroy(call.path.token, call.path.version, actor=call.actor, if_match=call.if_match)
    )


def _token(record: TokenRecord) -> Reply:
    return Reply(body=token_view(record), rev=record.rev)


def _put(put: Put, *, made: bool = False) -> Reply:
    """The entity tag is the token's: it is what the next change of the token is compared with."""
    location = _location(put.version.token, put.version.version) if made else None
    return Reply(body=version_view(put.version), rev=put.token.rev, location=location)


def _location(token: str, version: int) -> str:
    return _VERSION.format(token=token, version=version)


def _new_or_refusal(item: BatchItem) -> NewVersion | BrokerError:
    try:
        return item.new_version(item.token)
    except BrokerError as refused:
        return refused


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/tokens",
        operation="listTokens",
        tag="tokens",
        roles=EVERYONE,
        handler=list_tokens,
        query_type=TokenQuery,
        reply=Listing[Token],
    ),
    Route(
        method="POST",
        path="/v1/tokens",
        operation="putTokens",
        tag="tokens",
        roles=OPERATORS,
        handler=put_many,
        body_type=PutBatch,
        reply=BatchDone,
        deadline_s=120.0,
    ),
    Route(
        method="GET",
        path=f"{_ONE}/-/versions",
        operation="listVersions",
        tag="tokens",
        roles=EVERYONE,
        handler=list_versions,
        path_type=TokenPath,
        query_type=PageQuery,
        reply=Listing[TokenVersion],
    ),
    Route(
        method="POST",
        path=f"{_ONE}/-/versions",
        operation="putToken",
        tag="tokens",
        roles=OPERATORS,
        handler=put_version,
        path_type=TokenPath,
        body_type=PutVersion,
        reply=TokenVersion,
        status=201,
        creates=True,
        again=put_version_again,
        conditional=True,
    ),
    Route(
        method="GET",
        path=_VERSION,
        operation="showVersion",
        tag="tokens",
        roles=EVERYONE,
        handler=show_version,
        path_type=VersionPath,
        reply=TokenVersion,
    ),
    Route(
        method="POST",
        path=f"{_VERSION}/promote",
        operation="promoteVersion",
        tag="tokens",
        roles=OPERATORS,
        handler=promote_version,
        path_type=VersionPath,
        reply=TokenVersion,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_VERSION}/retire",
        operation="retireVersion",
        tag="tokens",
        roles=OPERATORS,
        handler=retire_version,
        path_type=VersionPath,
        reply=TokenVersion,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/-/rollback",
        operation="rollbackToken",
        tag="tokens",
        roles=OPERATORS,
        handler=rollback_token,
        path_type=TokenPath,
        reply=TokenVersion,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_VERSION}/destroy",
        operation="destroyVersion",
        tag="tokens",
        roles=OPERATORS,
        handler=destroy_version,
        path_type=VersionPath,
        reply=TokenVersion,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/-/disable",
        operation="disableToken",
        tag="tokens",
        roles=OPERATORS,
        handler=disable_token,
        path_type=TokenPath,
        reply=Token,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/-/enable",
        operation="enableToken",
        tag="tokens",
        roles=OPERATORS,
        handler=enable_token,
        path_type=TokenPath,
        reply=Token,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/-/reveal",
        operation="revealToken",
        tag="tokens",
        roles=ADMINS,
        handler=reveal_token,
        path_type=TokenPath,
        body_type=AskReveal,
        reply=Revealed,
    ),
    Route(
        method="GET",
        path=_ONE,
        operation="showToken",
        tag="tokens",
        roles=EVERYONE,
        handler=show_token,
        path_type=TokenPath,
        reply=Token,
    ),
    Route(
        method="PATCH",
        path=_ONE,
        operation="changeToken",
        tag="tokens",
        roles=OPERATORS,
        handler=change_token,
        path_type=TokenPath,
        body_type=ChangeToken,
        reply=Token,
        conditional=True,
    ),
    Route(
        method="DELETE",
        path=_ONE,
        operation="deleteToken",
        tag="tokens",
        roles=OPERATORS,
        handler=delete_token,
        path_type=TokenPath,
        status=204,
        conditional=True,
    ),
)
