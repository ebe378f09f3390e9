"""Requests made from the OpenAPI document, right and wrong, are answered as it says, and never with 5xx."""

from __future__ import annotations

import asyncio

import pytest
import schemathesis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from broker.api.routes import ROUTES
from tokenbroker_client.wire import b64

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 6
POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


async def fill(site) -> dict[str, str]:
    """Make one of each kind of thing, and give the path parameters that name them."""
    await site.put("known/token")
    await site.put("known/token", stage="pending")
    public_key = b64(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    await site.ask("POST", "/v1/workers", {"worker": "known", "public_key": public_key})
    grant = await site.ask("POST", "/v1/grants", {"subject": "worker:known", "pattern": "known/*"})
    await site.admin("known", "reader")
    return {
        "token": "known/token",
        "version": 2,
        "worker": "known",
        "grant": grant.body["grant"],
        "keyring": "default",
        "data_key": (await site.ask("GET", "/v1/keyrings/default")).body["active_data_key"],
        "admin": "known",
    }


def exercise(operation, credential: str, known: dict | None, mode: GenerationMode) -> None:
    """Send what the document allows (or forbids), and compare each answer with the document."""
    named = {name: value for name, value in (known or {}).items() if f"{{{name}}}" in operation.path}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode, path_parameters=named or None))
    def send(case) -> None:
        response = case.call(headers={"Authorization": f"Bearer {credential}"})
        case.validate_response(response, checks=CHECKS)

    send()


async def test_every_answer_is_as_the_document_says(site) -> None:
    """For each operation: requests on known and unknown things, well-formed and malformed; all failures are told."""
    known = await fill(site)
    credential = site.credentials["admin"]

    def run() -> list[str]:
        schema = schemathesis.openapi.from_url(f"{site.url}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations()]
        # What deletes comes last, so that the others find what they name.
        operations.sort(key=lambda operation: operation.method.upper() == "DELETE")
        assert len(operations) == len(ROUTES)
        failures = []
        for operation in operations:
            for names, mode in ((None, POSITIVE), (known, POSITIVE), (known, NEGATIVE)):
                try:
                    exercise(operation, credential, names, mode)
                except BaseException as error:  # noqa: BLE001 - every operation is tried, and all told at the end
                    failures.append(f"{operation.label} {mode}: {error!r} {error}")
        return failures

    async def live() -> None:
        while True:
            await site.clock.advance(0.1)
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as tasks:
        living = tasks.create_task(live())  # what keeps to a rate waits for the clock
        failures = await asyncio.to_thread(run)
        living.cancel()
    assert not failures, "\n".join(failures)


async def test_a_document_that_leaves_out_an_answer_is_caught(site) -> None:
    """The saboteur: without 404 in the document, the same checks fail on a worker that is not there."""
    document = (await site.ask("GET", "/openapi.json")).body
    del document["paths"]["/v1/workers/{worker}"]["get"]["responses"]["404"]

    def run() -> None:
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=site.url)
        exercise(schema["/v1/workers/{worker}"]["GET"], site.credentials["admin"], None, POSITIVE)

    with pytest.raises(FailureGroup, match="404"):
        await asyncio.to_thread(run)
