"""Operations on keyrings and data keys."""

from __future__ import annotations

from typing import Final

from broker.admin.roles import ADMINS, EVERYONE, OPERATORS
from broker.api.paging import PageQuery
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route
from broker.api.services import Services
from broker.api.views.common import Listing
from broker.api.views.keys import AddKeyring, DataKey, KeyQuery, Keyring, KeyringPath, data_key_view, keyring_view
from storage.records import KeyringRecord

_ALL: Final = "/v1/keyrings"
_ONE: Final = "/v1/keyrings/{keyring}"


async def list_keyrings(services: Services, call: Call[Nothing, PageQuery, Nothing]) -> Reply:
    """List the keyrings."""
    pager = call.pager
    page = pager.cut(services.authority.keyrings)
    return Reply(body=Listing(items=[keyring_view(record) for record in page.records], next=pager.next(page.next)))


async def show_keyring(services: Services, call: Call[KeyringPath, Nothing, Nothing]) -> Reply:
    """Show one keyring."""
    record = services.keys.keyring(call.path.keyring)
    return Reply(body=keyring_view(record), rev=record.rev)


async def add_keyring(services: Services, call: Call[Nothing, Nothing, AddKeyring]) -> Reply:
    """Add a keyring with a fresh data key."""
    body = call.body
    record = await services.keys.add_keyring(
        body.keyring, kms_keys=body.kms_keys, authorize=body.authorize, actor=call.actor, once=call.once
    )
    return _made(record)


async def add_keyring_again(services: Services, _call: Call[Nothing, Nothing, AddKeyring], made: str) -> Reply:
    """Show the keyring that an earlier request of this key added."""
    return _made(services.keys.keyring(made))


async def rotate_keyring(services: Services, call: Call[KeyringPath, Nothing, Nothing]) -> Reply:
    """Give a keyring a fresh active data key; the one before only opens from now on."""
    rotated = await services.keys.rotate(call.path.keyring, actor=call.actor)
    return Reply(body=keyring_view(rotated.keyring), rev=rotated.keyring.rev)


async def list_keys(services: Services, call: Call[Nothing, KeyQuery, Nothing]) -> Reply:
    """List the data keys, none of their bytes."""
    pager, keyring = call.pager, call.query.keyring
    page = pager.cut(key for key in services.authority.data_keys if keyring in (None, key.keyring))
    return Reply(body=Listing(items=[data_key_view(record) for record in page.records], next=pager.next(page.next)))


async def flush_keys(services: Services, call: Call[Nothing, Nothing, Nothing]) -> Reply:
    """Wipe every unwrapped data key in this replica's memory; the next use asks the KMS again."""
    await services.keys.flush(actor=call.actor)
    return Reply()


def _made(record: KeyringRecord) -> Reply:
    return Reply(body=keyring_view(record), rev=record.rev, location=_ONE.format(keyring=record.name))


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path=_ALL,
        operation="listKeyrings",
        tag="keys",
        roles=EVERYONE,
        handler=list_keyrings,
        query_type=PageQuery,
        reply=Listing[Keyring],
    ),
    Route(
        method="POST",
        path=_ALL,
        operation="addKeyring",
        tag="keys",
        roles=ADMINS,
        handler=add_keyring,
        body_type=AddKeyring,
        reply=Keyring,
        status=201,
        creates=True,
        again=add_keyring_again,
    ),
    Route(
        method="GET",
        path=_ONE,
        operation="showKeyring",
        tag="keys",
        roles=EVERYONE,
        handler=show_keyring,
        path_type=KeyringPath,
        reply=Keyring,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/rotate",
        operation="rotateKeyring",
        tag="keys",
        roles=OPERATORS,
        handler=rotate_keyring,
        path_type=KeyringPath,
        reply=Keyring,
    ),
    Route(
        method="GET",
        path="/v1/keys",
        operation="listKeys",
        tag="keys",
        roles=EVERYONE,
        handler=list_keys,
        query_type=KeyQuery,
        reply=Listing[DataKey],
    ),
    Route(
        method="POST",
        path="/v1/keys/flush",
        operation="flushKeys",
        tag="keys",
        roles=OPERATORS,
        handler=flush_keys,
        status=204,
    ),
)
