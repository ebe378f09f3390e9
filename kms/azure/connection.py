"""Connects and signs in to a vault through Microsoft's SDK: what is trusted, which identity, how often, how much.

Asking for keys does not live here; nor do pacing and back-off, which are the broker's.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from azure.core.pipeline.transport import AioHttpTransport
from azure.identity.aio import EnvironmentCredential, ManagedIdentityCredential
from azure.keyvault.keys.aio import KeyClient

from kms.azure.uri import VaultKey
from kms.errors import BadKey, Corrupt

ANSWER_BYTES_MAX = 64 * 1024
"""Largest answer that is read, of the vault or of the sign-in endpoint."""
CONNECTIONS_MAX = 32
CONNECT_S = 1.0
"""How long connecting may take; a second attempt then still has a part of the call's time."""
ANSWER_S = 1.5
"""How long the service may keep silent."""


@asynccontextmanager
async def session_for(where: VaultKey) -> AsyncIterator[aiohttp.ClientSession]:
    """Connections to the vault and to the sign-in. A ca-file replaces the system's authorities, for both.

    BadKey: the ca-file. Proxies are those of the environment, as with Microsoft's other tools.
    """
    try:
        trusted = ssl.create_default_context(cafile=where.ca_file or None)
    except (OSError, ValueError) as error:
        raise BadKey(f"the ca-file {where.ca_file} is no readable file of PEM certificates") from error
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trusted, limit=CONNECTIONS_MAX),
        response_class=_BoundedResponse,
        headers={"Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=True,
    ) as session:
        yield session


@asynccontextmanager
async def client_for(where: VaultKey, session: aiohttp.ClientSession) -> AsyncIterator[KeyClient]:
    """The SDK's client, which signs in when it is first used. BadKey: the environment makes no identity."""
    transport = AioHttpTransport(
        session=session, session_owner=False, connection_timeout=CONNECT_S, read_timeout=ANSWER_S
    )
    # One retry, of a connection that broke. Whatever the service answers is for the broker to pace.
    retries: dict[str, Any] = {"retry_total": 1, "retry_connect": 1, "retry_read": 0, "retry_status": 0}
    async with (
        _credential(transport, retries) as credential,
        KeyClient(
            where.vault,
            credential,
            transport=transport,
            permit_redirects=False,
            **retries,
        ) as client,
    ):
        yield client


def _credential(
    transport: AioHttpTransport, retries: Mapping[str, Any]
) -> EnvironmentCredential | ManagedIdentityCredential:
    """The one identity that the environment configures.

    Not the SDK's DefaultAzureCredential: it goes on to the next identity where one fails, down to a developer's own,
    and makes an outage of the sign-in look like a refusal.
    """
    try:
        if os.environ.get("AZURE_CLIENT_SECRET") or os.environ.get("AZURE_CLIENT_CERTIFICATE_PATH"):
            return EnvironmentCredential(transport=transport, **retries)
        return ManagedIdentityCredential(client_id=os.environ.get("AZURE_CLIENT_ID"), transport=transport, **retries)
    except (OSError, ValueError) as error:
        raise BadKey(f"the AZURE_ variables of the environment make no identity ({type(error).__name__})") from error


class _BoundedResponse(aiohttp.ClientResponse):
    """An answer of at most ANSWER_BYTES_MAX, uncompressed. What is more or else is Corrupt, or empty in a refusal."""

    async def read(self) -> bytes:
        """The body."""
        body = bytearray()
        try:
            async for chunk in self.content.iter_any():
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    break
        except BaseException:
            self.close()
            raise
        if len(body) <= ANSWER_BYTES_MAX and self.headers.get("Content-Encoding", "identity") == "identity":
            return bytes(body)
        self.close()
        if self.status >= 400:
            # The status says what to do, and must be heard: a gateway's page of 503 is an outage.
            return b""
        raise Corrupt(f"the answer has more than {ANSWER_BYTES_MAX} bytes, or is compressed; is this address a vault?")
