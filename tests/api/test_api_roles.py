"""Who may do what: the whole matrix, walked over a real socket."""

from __future__ import annotations

import pytest

from broker.api.routes import ROUTES

A, O, U, R = "admin", "operator", "auditor", "reader"  # noqa: E741 - columns of the table below
EVERYBODY, OPERATORS, AUDITORS, ADMINS = {A, O, U, R}, {A, O}, {A, U}, {A}

MATRIX = {
    "listTokens": EVERYBODY,
    "showToken": EVERYBODY,
    "listVersions": EVERYBODY,
    "showVersion": EVERYBODY,
    "putToken": OPERATORS,
    "putTokens": OPERATORS,
    "promoteVersion": OPERATORS,
    "rollbackToken": OPERATORS,
    "retireVersion": OPERATORS,
    "listRollouts": EVERYBODY,
    "showRollout": EVERYBODY,
    "startRollout": OPERATORS,
    "abortRollout": OPERATORS,
    "destroyVersion": OPERATORS,
    "disableToken": OPERATORS,
    "enableToken": OPERATORS,
    "changeToken": OPERATORS,
    "deleteToken": OPERATORS,
    "revealToken": ADMINS,
    "listWorkers": EVERYBODY,
    "showWorker": EVERYBODY,
    "registerWorker": OPERATORS,
    "changeWorker": OPERATORS,
    "removeWorker": OPERATORS,
    "disableWorker": OPERATORS,
    "enableWorker": OPERATORS,
    "addWorkerKey": OPERATORS,
    "removeWorkerKey": OPERATORS,
    "listEnrolments": {A, O, U},
    "issueEnrolment": OPERATORS,
    "withdrawEnrolment": OPERATORS,
    "listGrants": EVERYBODY,
    "showGrant": EVERYBODY,
    "testGrant": EVERYBODY,
    "addGrant": OPERATORS,
    "removeGrant": OPERATORS,
    "pruneGrants": OPERATORS,
    "reviewAccess": AUDITORS,
    "reviewAdmins": AUDITORS,
    "listPools": EVERYBODY,
    "showPool": EVERYBODY,
    "definePool": OPERATORS,
    "deletePool": OPERATORS,
    "addPoolMember": OPERATORS,
    "removePoolMember": OPERATORS,
    "quarantinePoolMember": OPERATORS,
    "releasePoolMember": OPERATORS,
    "listRotations": EVERYBODY,
    "listRotators": EVERYBODY,
    "showRotation": EVERYBODY,
    "setRotation": OPERATORS,
    "removeRotation": OPERATORS,
    "pauseRotation": OPERATORS,
    "resumeRotation": OPERATORS,
    "runRotation": OPERATORS,
    "abandonRotation": OPERATORS,
    "tryRotation": OPERATORS,
    "listIssuers": EVERYBODY,
    "listInstalledIssuers": EVERYBODY,
    "showIssuer": EVERYBODY,
    "setIssuer": OPERATORS,
    "listIssued": EVERYBODY,
    "forgetIssued": OPERATORS,
    "listLeases": EVERYBODY,
    "tellLeases": EVERYBODY,
    "revokeLeases": OPERATORS,
    "listSessions": EVERYBODY,
    "listKeyrings": EVERYBODY,
    "showKeyring": EVERYBODY,
    "addKeyring": ADMINS,
    "rotateKeyring": OPERATORS,
    "rewrapKeyring": OPERATORS,
    "resealKeyring": OPERATORS,
    "rewrapRoot": OPERATORS,
    "retireKmsKey": ADMINS,
    "showKey": EVERYBODY,
    "destroyKey": ADMINS,
    "listKeys": EVERYBODY,
    "flushKeys": OPERATORS,
    "listAdmins": AUDITORS,
    "showAdmin": AUDITORS,
    "createAdmin": ADMINS,
    "removeAdmin": ADMINS,
    "disableAdmin": ADMINS,
    "enableAdmin": ADMINS,
    "replaceCredential": ADMINS,
    "listAuditEntries": AUDITORS,
    "exportAudit": AUDITORS,
    "verifyAudit": AUDITORS,
    "proveEntry": AUDITORS,
    "showStatus": EVERYBODY,
    "takeBackup": ADMINS,
}

PARAMETERS = {
    "token": "no/such",
    "version": "1",
    "worker": "nobody",
    "grant": "none",
    "lease": "none",
    "enrolment": "none",
    "keyring": "none",
    "data_key": "none",
    "admin": "nobody",
    "key_sha256": "0" * 64,
}


def test_the_matrix_names_every_operation() -> None:
    """An operation without a row in the matrix, or with other roles than its row, fails here."""
    guarded = {route.operation: {role.value for role in route.roles} for route in ROUTES if route.roles is not None}
    assert guarded == MATRIX


def test_one_operation_alone_needs_no_credential() -> None:
    """Redeeming an enrolment code is the only one."""
    assert [route.operation for route in ROUTES if route.roles is None] == ["enroll"]


@pytest.mark.parametrize("role", [A, O, U, R])
async def test_each_role_may_do_exactly_its_column(site, role) -> None:
    """For every operation: 403 `denied` where the matrix has no entry, and something else where it has one."""
    for route in ROUTES:
        if route.roles is None:
            continue
        body = {"nonsense": True} if route.takes_body else None
        answer = await site.ask(route.method, route.path.format(**PARAMETERS), body, role=role)
        denied = answer.status == 403
        assert denied == (role not in MATRIX[route.operation]), f"{role} {route.operation}: {answer.raw!r}"


async def test_roles_add_up(site) -> None:
    """Whoever has two roles may do what either may."""
    await site.admin("both", "auditor", "reader")
    assert (await site.ask("GET", "/v1/audit/entries", role="both")).status == 200
    assert (await site.ask("POST", "/v1/keys/flush", role="both")).status == 403


async def test_a_denied_request_is_on_record_and_its_body_unread(site) -> None:
    """The role is checked before the body: a malformed one is still `denied`, and the log names operation and admin."""
    answer = await site.ask("POST", "/v1/grants", {"nonsense": 1}, role="reader")
    assert answer.code == "denied"
    assert b"addGrant" in await site.recorded()
    assert b"admin:reader" in await site.recorded()
