"""What is wrong with a request is said in a problem document, and the broker goes on."""

from __future__ import annotations

import asyncio
import contextlib
import io

import aiohttp
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.admin import errors as admin_errors
from broker.api import errors as api_errors  # noqa: F401 - likewise
from broker.api.problems import TABLE, Row, problem_of, row_of
from broker.errors import BrokerError
from tokenbroker_client.wire import b64


def tree(kind: type[BrokerError]) -> list[type[BrokerError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]


@pytest.mark.parametrize("kind", tree(BrokerError), ids=lambda kind: kind.__qualname__)
def test_every_error_has_a_status(kind) -> None:
    """Each class of the tree leads to a row: its own, or that of a root class that says what it is."""
    row = row_of(kind)
    assert isinstance(row, Row)
    if kind is not BrokerError:
        nearest = next(base for base in kind.__mro__ if base in TABLE)
        assert nearest is not BrokerError, f"{kind.__name__} would be answered as our bug"


@pytest.mark.parametrize("kind", BrokerError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_each_root_class_has_a_row_of_its_own(kind) -> None:
    """A branch added to the tree without a row fails here."""
    assert kind in TABLE


def test_a_problem_says_what_the_error_says() -> None:
    """Code, status and message are the error's own."""
    problem = problem_of(admin_errors.LastAdmin("admin ann is the last one"))
    assert (problem.code, problem.status, problem.detail) == ("last_admin", 409, "admin ann is the last one")


@pytest.mark.parametrize(
    ("body", "headers", "status", "code_said"),
    [
        (b"{", {}, 400, ("bad_request", "body")),
        (b"[]", {}, 400, ("bad_request", "object")),
        (b'{"subject":"\xff"}', {}, 400, ("bad_request", "UTF-8")),
        (b'{"subject":"worker:a","pattern":"a","color":"red"}', {}, 400, ("bad_request", "color")),
        (b'{"subject":"worker:a"}', {}, 400, ("bad_request", "pattern")),
        (b'{"subject":1,"pattern":"a"}', {}, 400, ("bad_request", "$.subject")),
        (b"{}", {"Content-Type": "text/plain"}, 415, ("wrong_media_type", "JSON")),
        (b"{}", {"Content-Type": "application/json; charset=latin-1"}, 415, ("wrong_media_type", "JSON")),
        (b" " * 1_048_577, {}, 413, ("too_large", "1 MiB")),
    ],
    ids=["cut", "list", "utf8", "unknown", "missing", "type", "media", "charset", "large"],
)
async def test_malformed_bodies_are_refused_with_what_is_wrong(site, body, headers, status, code_said) -> None:
    """Each kind of malformed body has its status and names what is wrong; nothing is made."""
    code, said = code_said
    sent = {"Authorization": f"Bearer {site.credentials['admin']}", "Content-Type": "application/json", **headers}
    async with site.http.post(f"{site.url}/v1/grants", data=io.BytesIO(body), headers=sent) as response:
        problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["code"], problem["status"]) == (status, code, status)
    assert said in problem["detail"]
    assert len(site.broker.authority.grants) == 0


async def test_a_body_that_never_says_how_long_it_is_is_cut_too(site) -> None:
    """Chunked bodies over the bound are refused like declared ones."""

    async def endless():
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                yield b" " * 65_536

    sent = {"Authorization": f"Bearer {site.credentials['admin']}", "Content-Type": "application/json"}
    async with site.http.post(f"{site.url}/v1/grants", data=endless(), headers=sent) as response:
        assert response.status == 413


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "color=red", "limit=1&limit=2", "cursor=%00", "at=yesterday"]
)
async def test_malformed_queries_are_refused(site, query) -> None:
    """Unknown, repeated and malformed parameters are told, not ignored."""
    answer = await site.ask("GET", f"/v1/leases?{query}")
    assert (answer.status, answer.code) == (400, "bad_request")


async def test_other_methods_are_told_which_there_are(site) -> None:
    """405 lists the methods that the path takes."""
    answer = await site.ask("PUT", "/v1/grants")
    assert (answer.status, answer.code, answer.headers["Allow"]) == (405, "wrong_method", "GET, POST")


async def test_every_answer_forbids_caching_and_sniffing(site) -> None:
    """Whatever the status, and without telling which server it is."""
    for path in ("/v1/tokens", "/v1/nothing", "/healthz", "/openapi.json"):
        headers = (await site.ask("GET", path)).headers
        assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
        assert headers["Server"] == "tokenbroker"


async def test_our_bug_is_a_reference_and_nothing_else(site, monkeypatch) -> None:
    """An unknown exception becomes `internal` with a reference; its text is in the log alone, under that reference."""

    async def broken():
        raise KeyError("canary-internal")

    object.__setattr__(site.services, "facts", broken)
    with structlog.testing.capture_logs() as logs:
        answer = await site.ask("GET", "/v1/status")
    assert (answer.status, answer.code) == (500, "internal")
    assert b"canary" not in answer.raw
    logged = next(line for line in logs if line["event"] == "api.internal_error")
    assert logged["reference"] == answer.body["reference"]
    assert answer.body["reference"] in answer.body["detail"]


async def test_a_download_that_breaks_has_no_proper_end(site) -> None:
    """Whoever reads it is told by the connection, the log and the metrics each once; the broker goes on."""

    async def broken():
        yield b"x"
        raise KeyError("canary-midway")

    @contextlib.asynccontextmanager
    async def exported():
        yield broken()

    site.services.audit.exported = exported
    with structlog.testing.capture_logs() as logs, pytest.raises(aiohttp.ClientPayloadError):
        await site.ask("GET", "/v1/audit/export", role="auditor")
    assert [line["event"] for line in logs] == ["api.stream_cut", "api.request"]
    assert "canary" not in str(logs)
    labels = {"method": "GET", "route": "/v1/audit/export"}
    assert site.registry.get_sample_value("tokenbroker_api_requests_total", {**labels, "status": "499"}) == 1
    assert site.registry.get_sample_value("tokenbroker_api_request_seconds_count", labels) == 1
    assert (await site.ask("GET", "/v1/status")).status == 200


async def test_strangers_do_not_learn_what_ails_the_broker(site) -> None:
    """Without a credential a 503 says no more than that; an admin is told the reason."""
    site.broker.journal.refuse("canary: the disk of host db-7 is full")
    public = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    stranger = await site.ask(
        "POST", "/v1/enroll", {"code": "tbe_x.y", "public_key": b64(public), "signature": "A" * 86}, role=None
    )
    assert (stranger.status, stranger.code) == (503, "unavailable")
    assert b"canary" not in stranger.raw
    admin = await site.put("a")
    assert (admin.status, b"canary" in admin.raw) == (503, True)


async def test_what_takes_too_long_is_cut_and_says_so(site) -> None:
    """A handler that does not end is answered 503 `not_in_time` after its route's deadline."""
    from broker.api.errors import NotInTime

    assert problem_of(NotInTime()).status == 503
    hanging = asyncio.Event()
    object.__setattr__(site.services, "facts", hanging.wait)
    route = next(route for route in site.app.router.routes() if route.resource.canonical == "/v1/status")
    object.__setattr__(route.handler.args[0], "deadline_s", 0.05)
    try:
        answer = await site.ask("GET", "/v1/status")
    finally:
        object.__setattr__(route.handler.args[0], "deadline_s", 30.0)
    assert (answer.status, answer.code) == (503, "not_in_time")
