"""Operations on the audit log."""

from __future__ import annotations

from typing import Final

from broker.admin.roles import AUDITORS
from broker.api.paging import PageQuery
from broker.api.route import AnyRoute, Call, Nothing, Reply, Route, Stream
from broker.api.services import Services
from broker.api.turns import Turn
from broker.api.views.audit import AskProof, AuditEntry, EntryProof, Verification, entry_view, proof_view, report_view
from broker.api.views.common import Listing


async def list_entries(services: Services, call: Call[Nothing, PageQuery, Nothing]) -> Reply:
    """List the entries of the audit log, newest log first and newest entry first."""
    pager = call.pager
    page = await services.audit.tail(after=pager.after, limit=pager.limit)
    return Reply(body=Listing(items=[entry_view(entry) for entry in page.entries], next=pager.next(page.next)))


async def export_audit(services: Services, _call: Call[Nothing, Nothing, Nothing]) -> Stream:
    """Export the whole audit log as a tar archive that can be verified offline."""
    return Stream(media_type="application/x-tar", filename="audit.tar", opened=services.audit.exported())


async def verify_audit(services: Services, _call: Call[Nothing, Nothing, Nothing]) -> Reply:
    """Verify the audit log and every signed row in the database."""
    return Reply(body=report_view(await services.audit.verify()))


async def prove_entry(services: Services, call: Call[Nothing, Nothing, AskProof]) -> Reply:
    """Prove that one entry is in the log."""
    return Reply(body=proof_view(await services.audit.prove(call.body.log, call.body.seq)))


ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/v1/audit/entries",
        operation="listAuditEntries",
        tag="audit",
        roles=AUDITORS,
        handler=list_entries,
        query_type=PageQuery,
        reply=Listing[AuditEntry],
    ),
    Route(
        method="GET",
        path="/v1/audit/export",
        operation="exportAudit",
        tag="audit",
        roles=AUDITORS,
        handler=export_audit,
        media_type="application/x-tar",
        deadline_s=600.0,
        turn=Turn.COPY,
    ),
    Route(
        method="POST",
        path="/v1/audit/verify",
        operation="verifyAudit",
        tag="audit",
        roles=AUDITORS,
        handler=verify_audit,
        reply=Verification,
        deadline_s=600.0,
        turn=Turn.VERIFY,
    ),
    Route(
        method="POST",
        path="/v1/audit/prove",
        operation="proveEntry",
        tag="audit",
        roles=AUDITORS,
        handler=prove_entry,
        body_type=AskProof,
        reply=EntryProof,
        deadline_s=120.0,
        turn=Turn.VERIFY,
    ),
)
