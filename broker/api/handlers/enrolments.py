"""Operations on one-time codes, and the one operation without a credential: redeeming a code."""

from __future__ import annotations

from typing import Final

from broker.admin.roles import AUDITORS, OPERATORS
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route
from broker.api.services import Services
from broker.api.views.common import Listing
from broker.api.views.workers import (
    Enrolled,
    Enrolment,
    EnrolmentPath,
    EnrolmentQuery,
    IssuedEnrolment,
    IssueEnrolment,
    Redeem,
    enrolment_view,
    issued_view,
    raw_bytes,
)


async def list_enrolments(services: Services, call: Call[Nothing, EnrolmentQuery, Nothing]) -> Reply:
    """List the codes on record, or only those that are still open, without their secrets."""
    pager, now = call.pager, services.clock.now()
    page = pager.cut(
        code
        for code in services.authority.enrolments
        if not call.query.open or (code.used_at is None and code.expires_at > now)
    )
    return Reply(body=Listing(items=[enrolment_view(record) for record in page.records], next=pager.next(page.next)))


async def issue_enrolment(services: Services, call: Call[Nothing, Nothing, IssueEnrolment]) -> Reply:
    """Issue a one-time code for a worker, good for 15 minutes and shown this once."""
    issued = await services.enrolment.issue(call.body.worker, groups=call.body.groups, actor=call.actor, once=call.once)
    return Reply(body=issued_view(issued))


async def withdraw_enrolment(services: Services, call: Call[EnrolmentPath, Nothing, Nothing]) -> Reply:
    """Make a code worth nothing before it is used."""
    await services.enrolment.withdraw(call.path.enrolment, actor=call.actor)
    return Reply()


async def enroll(services: Services, call: Call[Nothing, Nothing, Redeem]) -> Reply:
    """Redeem a code: register the worker it is for with the key that is proved."""
    worker = await services.enrolment.redeem(
        call.body.code,
        public_key=raw_bytes("public_key", call.body.public_key, length=32),
        signature=raw_bytes("signature", call.body.signature, length=64),
        source=call.source,
    )
    return Reply(body=Enrolled(worker=worker.name, cluster=services.cluster_id))


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/enrolments",
        operation="listEnrolments",
        tag="enrolments",
        roles=OPERATORS | AUDITORS,
        handler=list_enrolments,
        query_type=EnrolmentQuery,
        reply=Listing[Enrolment],
    ),
    Route(
        method="POST",
        path="/v1/enrolments",
        operation="issueEnrolment",
        tag="enrolments",
        roles=OPERATORS,
        handler=issue_enrolment,
        body_type=IssueEnrolment,
        reply=IssuedEnrolment,
        status=201,
        creates=True,
    ),
    Route(
        method="DELETE",
        path="/v1/enrolments/{enrolment}",
        operation="withdrawEnrolment",
        tag="enrolments",
        roles=OPERATORS,
        handler=withdraw_enrolment,
        path_type=EnrolmentPath,
        status=204,
    ),
    Route(
        method="POST",
        path="/v1/enroll",
        operation="enroll",
        tag="enrolments",
        roles=None,
        handler=enroll,
        body_type=Redeem,
        reply=Enrolled,
    ),
)
