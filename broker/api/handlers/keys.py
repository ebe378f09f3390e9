"""Operations on keyrings and data keys."""

from __future__ import annotations

from typing import Final

from broker.admin.resealing import Place
from broker.admin.roles import ADMINS, EVERYONE, OPERATORS
from broker.api.paging import PageQuery
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route
from broker.api.services import Services
from broker.api.turns import Turn
from broker.api.views.common import Listing
from broker.api.views.keys import (
    AddKeyring,
    DataKey,
    DataKeyPath,
    KeyQuery,
    Keyring,
    KeyringPath,
    KmsKeyRetired,
    Reseal,
    ResealDone,
    RetireKmsKey,
    Rewrap,
    RewrapDone,
    data_key_view,
    keyring_view,
    reseal_view,
    rewrap_view,
)
from storage.records import DataKeyRecord, KeyringRecord

_ALL: Final = "/v1/keyrings"
_ONE: Final = "/v1/keyrings/{keyring}"
_KEY: Final = "/v1/keys/{data_key}"


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
    items = [data_key_view(record, services.keys.kms_keys(record)) for record in page.records]
    return Reply(body=Listing(items=items, next=pager.next(page.next)))


async def show_key(services: Services, call: Call[DataKeyPath, Nothing, Nothing]) -> Reply:
    """Show one data key, none of its bytes."""
    return _shown(services, services.keys.data_key(call.path.data_key))


async def destroy_key(services: Services, call: Call[DataKeyPath, Nothing, Nothing]) -> Reply:
    """Take every wrap out of a data key that seals nothing, so that nobody can ever open it again."""
    record = await services.retirer.destroy(call.path.data_key, actor=call.actor, if_match=call.if_match)
    return _shown(services, record)


async def rewrap_keyring(services: Services, call: Call[KeyringPath, Nothing, Rewrap]) -> Reply:
    """Wrap some data keys of a keyring anew, by the KMS keys that it has now; repeat until none remains."""
    body = call.body
    done = await services.rewrapper.rewrap(call.path.keyring, after=body.after, limit=body.limit, actor=call.actor)
    return Reply(body=rewrap_view(done))


async def rewrap_root(services: Services, call: Call[Nothing, Nothing, Nothing]) -> Reply:
    """Wrap the root key anew, by the KMS keys that it has now."""
    return Reply(body=rewrap_view(await services.rewrapper.rewrap_root(actor=call.actor)))


async def reseal_keyring(services: Services, call: Call[KeyringPath, Nothing, Reseal]) -> Reply:
    """Seal some values of a keyring anew under its active data key; repeat until none remains."""
    body = call.body
    done = await services.resealer.reseal(
        call.path.keyring,
        after=None if body.after is None else Place(body.after.data_key, body.after.token, body.after.version),
        limit=body.limit,
        rate_per_s=body.rate_per_s,
        actor=call.actor,
    )
    return Reply(body=reseal_view(done))


async def retire_kms_key(services: Services, call: Call[Nothing, Nothing, RetireKmsKey]) -> Reply:
    """Take the wraps of a KMS key out that the configuration names no more and that nothing depends on."""
    done = await services.retirer.retire(call.body.kms_key, actor=call.actor)
    return Reply(body=KmsKeyRetired(kms_key=done.kms_key, data_keys=done.data_keys, root=done.root))


def _shown(services: Services, record: DataKeyRecord) -> Reply:
    return Reply(body=data_key_view(record, services.keys.kms_keys(record)), rev=record.rev)


async def flush_keys(services: Services, call: Call[Nothing, Nothing, Nothing]) -> Reply:
    """Wipe every unwrapped data key in the memory of all replicas; the next use asks the KMS again."""
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
        method="POST",
        path=f"{_ONE}/rewrap",
        operation="rewrapKeyring",
        tag="keys",
        roles=OPERATORS,
        handler=rewrap_keyring,
        path_type=KeyringPath,
        body_type=Rewrap,
        reply=RewrapDone,
        turn=Turn.REWRAP,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/reseal",
        operation="resealKeyring",
        tag="keys",
        roles=OPERATORS,
        handler=reseal_keyring,
        path_type=KeyringPath,
        body_type=Reseal,
        reply=ResealDone,
        turn=Turn.REWRAP,
    ),
    Route(
        method="POST",
        path="/v1/root/rewrap",
        operation="rewrapRoot",
        tag="keys",
        roles=OPERATORS,
        handler=rewrap_root,
        reply=RewrapDone,
        turn=Turn.REWRAP,
    ),
    Route(
        method="POST",
        path="/v1/kms-keys/retire",
        operation="retireKmsKey",
        tag="keys",
        roles=ADMINS,
        handler=retire_kms_key,
        body_type=RetireKmsKey,
        reply=KmsKeyRetired,
        turn=Turn.REWRAP,
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
    Route(
        method="GET",
        path=_KEY,
        operation="showKey",
        tag="keys",
        roles=EVERYONE,
        handler=show_key,
        path_type=DataKeyPath,
        reply=DataKey,
    ),
    Route(
        method="POST",
        path=f"{_KEY}/destroy",
        operation="destroyKey",
        tag="keys",
        roles=ADMINS,
        handler=destroy_key,
        path_type=DataKeyPath,
        reply=DataKey,
        conditional=True,
    ),
)
