"""Operations on the broker itself: its status and copies of its database."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from broker.admin.roles import ADMINS, EVERYONE
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route, Stream
from broker.api.services import Services
from broker.api.turns import Turn
from broker.api.views.audit import Status, kms_view, replica_view


async def show_status(services: Services, _call: Call[Nothing, Nothing, Nothing]) -> Reply:
    """Show what this replica is and how it does."""
    status = Status(
        cluster=services.cluster_id,
        instance=services.instance,
        version=version("tokenbroker"),
        now=services.clock.now(),
        kms=[kms_view(health) for health in services.kms_health()],
        replicas=[replica_view(row) for row in services.replicas()],
        facts=dict(await services.facts()),
    )
    return Reply(body=status)


async def take_backup(services: Services, call: Call[Nothing, Nothing, Nothing]) -> Stream:
    """Copy the whole database: sealed values and wrapped keys, nothing that opens without the KMS."""
    return Stream(
        media_type="application/octet-stream",
        filename=services.snapshots.name(),
        opened=services.snapshots.backup(actor=call.actor),
    )


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/status",
        operation="showStatus",
        tag="broker",
        roles=EVERYONE,
        handler=show_status,
        reply=Status,
    ),
    Route(
        method="POST",
        path="/v1/backup",
        operation="takeBackup",
        tag="broker",
        roles=ADMINS,
        handler=take_backup,
        media_type="application/octet-stream",
        deadline_s=600.0,
        turn=Turn.COPY,
    ),
)
