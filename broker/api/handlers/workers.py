"""Operations on workers. Codes by which workers register themselves are in `enrolments`."""

from __future__ import annotations

from typing import Final

from broker.admin.roles import EVERYONE, OPERATORS
from broker.admin.workers import NewWorker
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route
from broker.api.services import Services
from broker.api.views.common import Listing
from broker.api.views.workers import (
    AddKey,
    ChangeWorker,
    RegisterWorker,
    Worker,
    WorkerKeyPath,
    WorkerPath,
    WorkerQuery,
    raw_bytes,
    worker_view,
)
from storage.records import WorkerRecord

_ALL: Final = "/v1/workers"
_ONE: Final = "/v1/workers/{worker}"


async def list_workers(services: Services, call: Call[Nothing, WorkerQuery, Nothing]) -> Reply:
    """List the workers."""
    pager, group = call.pager, call.query.group
    page = pager.cut(worker for worker in services.authority.workers if group is None or group in worker.groups)
    return Reply(body=Listing(items=[worker_view(record) for record in page.records], next=pager.next(page.next)))


async def show_worker(services: Services, call: Call[WorkerPath, Nothing, Nothing]) -> Reply:
    """Show one worker."""
    return _worker(services.workers.get(call.path.worker))


async def register_worker(services: Services, call: Call[Nothing, Nothing, RegisterWorker]) -> Reply:
    """Register a worker with its public key."""
    new = NewWorker(
        name=call.body.worker,
        public_key=raw_bytes("public_key", call.body.public_key, length=32),
        groups=call.body.groups,
        labels=call.body.labels,
        expires_at=call.body.expires_at,
        single_session=call.body.single_session,
    )
    return _made(await services.workers.register(new, actor=call.actor, once=call.once))


async def register_worker_again(services: Services, _call: Call[Nothing, Nothing, RegisterWorker], made: str) -> Reply:
    """Show the worker that an earlier request of this key registered."""
    return _made(services.workers.get(made))


async def change_worker(services: Services, call: Call[WorkerPath, Nothing, ChangeWorker]) -> Reply:
    """Replace groups, labels, the expiry, or whether it may have one session only."""
    record = await services.workers.update(
        call.path.worker, changes=call.body.changes(), actor=call.actor, if_match=call.if_match
    )
    return _worker(record)


async def remove_worker(services: Services, call: Call[WorkerPath, Nothing, Nothing]) -> Reply:
    """Remove a worker, and every unused code that would make it again."""
    await services.workers.remove(call.path.worker, actor=call.actor, if_match=call.if_match)
    return Reply()


async def disable_worker(services: Services, call: Call[WorkerPath, Nothing, Nothing]) -> Reply:
    """Disable a worker: its sessions are closed and what they hold is revoked; leases without a session run out."""
    return _worker(await services.workers.disable(call.path.worker, actor=call.actor, if_match=call.if_match))


async def enable_worker(services: Services, call: Call[WorkerPath, Nothing, Nothing]) -> Reply:
    """Enable a worker again."""
    return _worker(await services.workers.enable(call.path.worker, actor=call.actor, if_match=call.if_match))


async def add_worker_key(services: Services, call: Call[WorkerPath, Nothing, AddKey]) -> Reply:
    """Let a further key prove a worker."""
    public_key = raw_bytes("public_key", call.body.public_key, length=32)
    record = await services.workers.add_key(
        call.path.worker, public_key, actor=call.actor, if_match=call.if_match, once=call.once
    )
    return _worker(record)


async def add_worker_key_again(services: Services, _call: Call[WorkerPath, Nothing, AddKey], made: str) -> Reply:
    """Show the worker that an earlier request of this key changed."""
    return _worker(services.workers.get(made))


async def remove_worker_key(services: Services, call: Call[WorkerKeyPath, Nothing, Nothing]) -> Reply:
    """Remove a key of a worker; sessions that it proved are closed."""
    record = await services.workers.remove_key(
        call.path.worker, call.path.key_sha256, actor=call.actor, if_match=call.if_match
    )
    return _worker(record)


def _worker(record: WorkerRecord) -> Reply:
    return Reply(body=worker_view(record), rev=record.rev)


def _made(record: WorkerRecord) -> Reply:
    return Reply(body=worker_view(record), rev=record.rev, location=_ONE.format(worker=record.name))


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path=_ALL,
        operation="listWorkers",
        tag="workers",
        roles=EVERYONE,
        handler=list_workers,
        query_type=WorkerQuery,
        reply=Listing[Worker],
    ),
    Route(
        method="POST",
        path=_ALL,
        operation="registerWorker",
        tag="workers",
        roles=OPERATORS,
        handler=register_worker,
        body_type=RegisterWorker,
        reply=Worker,
        status=201,
        creates=True,
        again=register_worker_again,
    ),
    Route(
        method="GET",
        path=_ONE,
        operation="showWorker",
        tag="workers",
        roles=EVERYONE,
        handler=show_worker,
        path_type=WorkerPath,
        reply=Worker,
    ),
    Route(
        method="PATCH",
        path=_ONE,
        operation="changeWorker",
        tag="workers",
        roles=OPERATORS,
        handler=change_worker,
        path_type=WorkerPath,
        body_type=ChangeWorker,
        reply=Worker,
        conditional=True,
    ),
    Route(
        method="DELETE",
        path=_ONE,
        operation="removeWorker",
        tag="workers",
        roles=OPERATORS,
        handler=remove_worker,
        path_type=WorkerPath,
        status=204,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/disable",
        operation="disableWorker",
        tag="workers",
        roles=OPERATORS,
        handler=disable_worker,
        path_type=WorkerPath,
        reply=Worker,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/enable",
        operation="enableWorker",
        tag="workers",
        roles=OPERATORS,
        handler=enable_worker,
        path_type=WorkerPath,
        reply=Worker,
        conditional=True,
    ),
    Route(
        method="POST",
        path=f"{_ONE}/keys",
        operation="addWorkerKey",
        tag="workers",
        roles=OPERATORS,
        handler=add_worker_key,
        path_type=WorkerPath,
        body_type=AddKey,
        reply=Worker,
        status=201,
        creates=True,
        again=add_worker_key_again,
        conditional=True,
    ),
    Route(
        method="DELETE",
        path=f"{_ONE}/keys/{{key_sha256}}",
        operation="removeWorkerKey",
        tag="workers",
        roles=OPERATORS,
        handler=remove_worker_key,
        path_type=WorkerKeyPath,
        reply=Worker,
        conditional=True,
    ),
)
