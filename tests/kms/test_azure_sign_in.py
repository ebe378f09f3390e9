"""How the broker signs in to a vault, and what a sign-in that fails means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kms.azure import adapter, open_azure
from kms.errors import BadKey, Denied, KmsError, Unavailable


async def test_the_managed_identity_signs_in_once(azure_vault: Any) -> None:
    """One access token, for the vault's resource, serves until it is old."""
    azure_vault.add("broker", 1)
    async with open_azure(azure_vault.uri("broker")) as kms:
        await kms.check()
        await kms.check()
    assert azure_vault.resources == [azure_vault.resource]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b'{"statusCode":400,"message":"no such identity"}', Denied),
        (401, b"{}", Denied),
        (403, b'{"error":"forbidden"}', Denied),
        (200, b'{"error":"no token in here"}', Denied),
        (200, b"<html>", Denied),
        (429, b"{}", Unavailable),
        (500, b'{"statusCode":500}', Unavailable),
        (503, b"<html>", Unavailable),
    ],
)
async def test_a_sign_in_that_fails_is_an_outage_or_a_refusal(
    azure_vault: Any, azure_standin: Any, status: int, body: bytes, expected: type[KmsError]
) -> None:
    """An identity endpoint that is ill is Unavailable; one that refuses, or says nothing known, is Denied."""
    azure_vault.add("broker", 1)
    azure_vault.identity_fault = azure_standin.always(status, body)
    with pytest.raises(expected) as caught:
        async with open_azure(azure_vault.uri("broker")) as kms:
            await kms.check()
    assert type(caught.value) is expected
    assert caught.value.kms_key == azure_vault.uri("broker")
    assert azure_vault.asked == []


async def test_an_identity_endpoint_that_is_not_there_is_unavailable(
    azure_vault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listening at the identity endpoint is an outage."""
    azure_vault.add("broker", 1)
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1/msi/token")
    with pytest.raises(Unavailable):
        async with open_azure(azure_vault.uri("broker")) as kms:
            await kms.check()


async def test_a_virtual_machines_identity_service_that_is_silent_is_unavailable(
    azure_vault: Any, azure_standin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside App Service the virtual machine's identity service is asked; while it is updated, that is an outage."""
    azure_vault.add("broker", 1)
    azure_vault.identity_fault = azure_standin.always(410, b"{}")
    monkeypatch.delenv("IDENTITY_ENDPOINT")
    monkeypatch.delenv("IDENTITY_HEADER")
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure_vault.identity_url.removesuffix("/msi/token"))
    with pytest.raises(Unavailable):
        async with open_azure(azure_vault.uri("broker")) as kms:
            await kms.check()


async def test_a_silent_identity_endpoint_is_unavailable_in_time(
    azure_vault: Any, azure_standin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening and calls end by their own deadlines though the sign-in never answers."""
    azure_vault.add("broker", 1)
    monkeypatch.setattr(adapter, "OPEN_S", 0.05)
    monkeypatch.setattr(adapter, "CALL_S", 0.05)
    azure_vault.identity_fault = azure_standin.silence
    with pytest.raises(Unavailable, match="sign-in"):
        async with open_azure(azure_vault.uri("broker")) as kms:
            await kms.check()


def _service_principal(azure_vault: Any, azure_standin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    azure_vault.add("broker", 1)
    monkeypatch.setenv("AZURE_TENANT_ID", azure_standin.TENANT)
    monkeypatch.setenv("AZURE_CLIENT_ID", "broker")
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", azure_vault.url)


async def test_a_service_principal_of_the_environment_signs_in(
    azure_vault: Any, azure_standin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client secret in the environment is the identity, and the managed identity is left alone."""
    _service_principal(azure_vault, azure_standin, monkeypatch)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", azure_standin.CLIENT_SECRET)
    azure_vault.identity_fault = azure_standin.always(500)
    async with open_azure(azure_vault.uri("broker")) as kms:
        await kms.check()
    assert azure_vault.resources == [azure_vault.resource]


async def test_a_service_principal_that_is_refused_is_denied(
    azure_vault: Any, azure_standin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong client secret is Denied with the code of the sign-in; no other identity covers it up."""
    _service_principal(azure_vault, azure_standin, monkeypatch)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "hunter2")
    with pytest.raises(Denied, match="AADSTS7000215") as caught:
        async with open_azure(azure_vault.uri("broker")) as kms:
            await kms.check()
    assert "hunter2" not in str(caught.value)
    assert azure_vault.resources == []


async def test_a_workload_identity_signs_in(
    azure_vault: Any, azure_standin: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In Kubernetes the token file of the service account is the identity."""
    _service_principal(azure_vault, azure_standin, monkeypatch)
    token = tmp_path / "token"
    token.write_text(azure_standin.CLIENT_SECRET)
    monkeypatch.delenv("IDENTITY_ENDPOINT")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(token))
    async with open_azure(azure_vault.uri("broker")) as kms:
        await kms.check()
    token.unlink()
    with pytest.raises(Denied, match="cannot be read"):
        async with open_azure(azure_vault.uri("broker")) as kms:
            await kms.check()


async def test_variables_that_make_no_identity_are_a_bad_key(
    azure_vault: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A certificate that cannot be read is said before anything is asked."""
    monkeypatch.setenv("AZURE_TENANT_ID", "standin")
    monkeypatch.setenv("AZURE_CLIENT_ID", "broker")
    monkeypatch.setenv("AZURE_CLIENT_CERTIFICATE_PATH", str(tmp_path / "missing.pem"))
    with pytest.raises(BadKey, match="AZURE_ variables"):
        async with open_azure(azure_vault.uri("broker")):
            pass


async def test_a_token_that_the_vault_refuses_is_denied(azure_vault: Any, azure_standin: Any) -> None:
    """A vault that goes on asking for a sign-in is Denied."""
    azure_vault.add("broker", 1)
    challenge = {"WWW-Authenticate": azure_vault.challenge()}
    azure_vault.fault = azure_standin.always(401, b"{}", **challenge)
    with pytest.raises(Denied, match="401"):
        async with open_azure(azure_vault.uri("broker")) as kms:
            await kms.check()


async def test_a_sign_in_to_something_else_is_denied(azure_vault: Any) -> None:
    """A server that asks for a token to another service than its own gets none."""
    azure_vault.add("broker", 1)
    azure_vault.resource = "https://management.azure.com"
    with pytest.raises(Denied, match="something else than this vault"):
        async with open_azure(azure_vault.uri("broker")) as kms:
            await kms.check()
    assert azure_vault.resources == []
