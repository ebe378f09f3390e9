"""Planted canaries come out of the operations that are made to show them, and of nothing else."""

from __future__ import annotations

import logging

import structlog
from prometheus_client import generate_latest

from broker.api.middleware import STRANGERS_AT_ONCE

VALUE = "canary-value-71c2"


async def everything_readable(site) -> list[bytes]:
    """What every reading operation answers."""
    paths = [
        "/v1/tokens",
        "/v1/tokens/a/b",
        "/v1/tokens/a/b/-/versions",
        "/v1/tokens/a/b/-/versions/1",
        "/v1/workers",
        "/v1/enrolments",
        "/v1/grants",
        "/v1/leases?all=true",
        "/v1/sessions?all=true",
        "/v1/keyrings",
        "/v1/keys",
        "/v1/admins",
        "/v1/audit/entries?limit=1000",
        "/v1/audit/export",
        "/v1/status",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
    ]
    return [(await site.ask("GET", path)).raw for path in paths]


async def test_secrets_are_in_no_log_no_answer_and_no_file(site, tmp_path, caplog) -> None:
    """A value, a credential and a code are planted through every way in, wrong ones included, and then searched for."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logs:
        await site.put("a/b", VALUE)
        await site.ask("POST", "/v1/tokens", {"items": [{"token": "a/c", "value": VALUE}]})
        made = await site.ask("POST", "/v1/admins", {"admin": "ann", "roles": ["reader"]})
        code = (await site.ask("POST", "/v1/enrolments", {"worker": "w"})).body["code"]
        secrets = [VALUE, made.body["credential"][4:], code.rpartition(".")[2], site.credentials["admin"][4:]]
        misplaced = [
            await site.ask("POST", "/v1/tokens/a/b/-/versions", {"value": VALUE, "stage": 1}),
            await site.ask("POST", "/v1/tokens/a/b/-/versions", {"value": VALUE, "value_b64": VALUE}),
            await site.ask("POST", "/v1/tokens/a/b/-/versions", {"value_b64": f"{VALUE}*"}),
            await site.ask("POST", "/v1/tokens/a/b/-/versions", {"value": [VALUE]}),
            await site.ask("POST", "/v1/enroll", {"code": code, "public_key": "x", "signature": "x"}, role=None),
            await site.ask("PATCH", "/v1/tokens/a/b", {"labels": {"key": VALUE + "\n"}}),
            await site.ask("GET", f"/v1/{VALUE}"),
        ]
        assert all(400 <= answer.status < 500 for answer in misplaced)
        answers = [answer.raw for answer in misplaced] + await everything_readable(site)
    texts = [repr(logs), caplog.text, generate_latest(site.registry).decode(), repr(site.services)]
    for secret in secrets:
        assert not any(secret in text for text in texts)
        assert not any(secret.encode() in raw for raw in answers)
        for path in tmp_path.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path.name


async def test_the_access_log_has_route_and_admin_and_no_more(site) -> None:
    """One line for each request: method, route template, status, duration, admin; no path, query or header."""
    with structlog.testing.capture_logs() as logs:
        await site.ask("GET", "/v1/tokens/team/x?cursor=abc", X_Secret="canary")
        await site.ask("GET", "/v1/no/such/canary")
    lines = [line for line in logs if line["event"] == "api.request"]
    assert [set(line) for line in lines] == [
        {"event", "log_level", "method", "route", "status", "duration_s", "admin"}
    ] * 2
    assert [(line["route"], line["status"], line["admin"]) for line in lines] == [
        ("/v1/tokens/{token}", 400, "admin"),
        ("", 404, ""),
    ]
    assert "canary" not in repr(lines)


async def test_a_backup_and_an_export_hold_no_value(site) -> None:
    """What leaves in bulk is sealed: a value is in neither."""
    await site.put("a/b", VALUE)
    for method, path in (("POST", "/v1/backup"), ("GET", "/v1/audit/export")):
        answer = await site.ask(method, path)
        assert answer.status == 200
        assert len(answer.raw) > 1000
        assert VALUE.encode() not in answer.raw


async def test_strangers_do_not_fill_the_log(site) -> None:
    """Requests without a credential get so many lines; those left out are counted by the next line, and no admin's
    request is ever left out."""
    with structlog.testing.capture_logs() as logs:
        for _ in range(STRANGERS_AT_ONCE + 30):
            await site.ask("GET", "/v1/nowhere", role=None)
        for _ in range(3):
            await site.ask("GET", "/v1/status", role="reader")
    lines = [line for line in logs if line["event"] == "api.request"]
    assert len(lines) == STRANGERS_AT_ONCE + 3
    assert [line.get("left_out") for line in lines[-3:]] == [30, None, None]
