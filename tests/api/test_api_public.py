"""Probes, metrics and the documents: what needs no credential."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest
import structlog
from prometheus_client import CollectorRegistry, generate_latest

from broker.api.metrics import Labelled, Readout, Spread, Spreads
from broker.api.openapi import openapi_document
from broker.api.probes import Readiness, State
from broker.api.reference import api_reference
from broker.api.routes import ROUTES
from broker.clock import FakeClock


async def test_the_process_is_alive_whatever_its_parts_do(site) -> None:
    """Liveness asks nobody: restarting a broker does not mend its database."""
    site.failing.update({"storage", "kms", "audit", "feed"})
    assert (await site.ask("GET", "/healthz", role=None)).body == {"alive": True}


@pytest.mark.parametrize("part", ["storage", "kms", "audit", "feed"])
async def test_readiness_is_red_when_a_part_cannot_serve(site, part) -> None:
    """503 names the part, says not why, and turns green again."""
    green = await site.ask("GET", "/readyz", role=None)
    assert (green.status, green.body["ready"]) == (200, True)
    site.failing.add(part)
    assert (await site.ask("GET", "/readyz", role=None)).status == 200, "answers are remembered for a second"
    await site.clock.advance(1)
    red = await site.ask("GET", "/readyz", role=None)
    assert (red.status, red.body["ready"], red.body["checks"][part]) == (503, False, "failed")
    assert sum(state == "failed" for state in red.body["checks"].values()) == 1
    assert b"down" not in red.raw
    site.failing.clear()
    await site.clock.advance(1)
    assert (await site.ask("GET", "/readyz", role=None)).status == 200


async def test_many_probes_run_the_checks_once() -> None:
    """A hundred probes at once cost one check, which other probes wait for."""
    calls = 0

    async def check() -> State:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return State.OK

    readiness = Readiness(checks={"storage": check}, clock=FakeClock())
    answers = await asyncio.gather(*(readiness.read() for _ in range(100)))
    assert calls == 1
    assert all(answer.ready for answer in answers)


async def test_a_degraded_part_is_ready() -> None:
    """What has lost a spare part serves on: a load balancer must not take it away, and whoever looks sees it."""

    async def check() -> State:
        return State.DEGRADED

    ready = await Readiness(checks={"kms": check}, clock=FakeClock()).read()
    assert (ready.ready, ready.checks) == (True, {"kms": "degraded"})


async def test_metrics_count_requests_by_route_and_never_by_path(site) -> None:
    """The labels are templates, so nobody can make series by asking for paths."""
    await site.put("secret/name")
    for number in range(5):
        await site.ask("GET", f"/v1/nothing/{number}", role=None)
    answer = await site.ask("GET", "/metrics", role=None)
    text = answer.raw.decode()
    assert 'route="/v1/tokens/{token}/-/versions",status="201"} 1.0' in text
    assert 'method="?",route="unmatched",status="404"} 5.0' in text
    assert "secret/name" not in text


def test_other_parts_counters_are_read_when_asked() -> None:
    """A readout shows plain numbers, numbers by kind and by several labels, histograms, and gauges that may fall."""
    registry = CollectorRegistry()
    numbers = {
        "hits": 1,
        "evictions": {"expired": 2, "denied": 0},
        "waiters": 7,
        "unwraps": Labelled(labels=("kind", "kms_key"), rows={("ok", "local:a"): 3}),
        "seconds": Spreads(labels=("kms_key",), bounds=(0.5, 2), rows={("local:a",): Spread(counts=[4, 1, 2], sum=9)}),
    }
    registry.register(Readout(part="vault", read=lambda: numbers, gauges=frozenset({"waiters"})))
    numbers["hits"] = 5
    text = generate_latest(registry).decode()
    assert "tokenbroker_vault_hits_total 5.0" in text
    assert 'tokenbroker_vault_evictions_total{kind="expired"} 2.0' in text
    assert "# TYPE tokenbroker_vault_waiters gauge" in text
    assert 'tokenbroker_vault_unwraps_total{kind="ok",kms_key="local:a"} 3.0' in text
    assert 'tokenbroker_vault_seconds_bucket{kms_key="local:a",le="2"} 5.0' in text
    assert 'tokenbroker_vault_seconds_bucket{kms_key="local:a",le="+Inf"} 7.0' in text
    assert 'tokenbroker_vault_seconds_sum{kms_key="local:a"} 9.0' in text


async def test_the_openapi_document_is_the_table(site) -> None:
    """Every route of the table is in the served document once, under its operation id, with its roles."""
    document = (await site.ask("GET", "/openapi.json", role=None)).body
    operations = {
        operation["operationId"]: (method.upper(), path)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert document["openapi"] == "3.1.0"
    assert operations == {route.operation: (route.method, route.path) for route in ROUTES}


def test_every_reference_of_the_document_leads_somewhere() -> None:
    """No schema names a component that is not there."""
    document = openapi_document(ROUTES, version="0")
    names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}

    def references(node: object) -> set[str]:
        if isinstance(node, dict):
            found = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return found.union(*(references(value) for value in node.values()))
        if isinstance(node, list):
            return set().union(*(references(value) for value in node))
        return set()

    assert references(document) <= names


def test_the_reference_names_every_operation_and_refusal() -> None:
    """docs/reference/api.md, generated from the table, has a row for each."""
    text = api_reference()
    for route in ROUTES:
        assert f"| {route.operation} | `{route.method} {route.path}` |" in text
    for code in ("precondition_failed", "rate_limited", "key_reused", "too_large"):
        assert f"| `{code}` |" in text


@pytest.mark.parametrize("declared", [True, False], ids=["with its length", "in chunks"])
async def test_strangers_send_short_bodies(site, declared: bool) -> None:
    """Where nobody has to be known, a body of a few kilobytes is refused before it is read to its end."""
    body = b'{"code":"' + b"x" * 8000 + b'"}'

    async def pieces():
        yield body

    headers = {"Content-Type": "application/json"}
    async with site.http.post(f"{site.url}/v1/enroll", data=body if declared else pieces(), headers=headers) as answer:
        assert answer.status == 413
        assert (await answer.json(content_type=None))["code"] == "too_large"


async def test_whoever_leaves_within_a_body_is_no_bug_of_ours(site) -> None:
    """A connection that is cut within its body leaves no error and no traceback in the log."""
    with structlog.testing.capture_logs() as logs:
        where = urlsplit(site.url)
        _, writer = await asyncio.open_connection(where.hostname, where.port)
        head = "POST /v1/enroll HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        writer.write(head.encode())
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()
        async with asyncio.timeout(5):
            while not any(line["event"] == "api.request" for line in logs):  # noqa: ASYNC110 - logs know no Event
                await asyncio.sleep(0.01)
    assert [line for line in logs if line["log_level"] == "error"] == []
