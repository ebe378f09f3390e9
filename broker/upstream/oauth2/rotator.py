"""The rotator `oauth2`: keeps an access token fresh, by a refresh token or by the client's own credentials.

The refresh token is a credential, and never leaves the broker. Where the server gives another one in its place, that
comes back in `Made.credentials`, to be stored before anything else is done. Access tokens end by themselves; with
`revoke_url` they are ended when their time has come.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Literal

from yarl import URL

from broker.secret import Secret
from broker.upstream.destinations import allowed_url
from broker.upstream.errors import BadSettings
from broker.upstream.http import Http, open_http, status_error
from broker.upstream.oauth2.endpoint import (
    ClientTerms,
    TokenEndpoint,
    check_client,
    client_credentials,
    endpoint_for,
    spelt,
)
from broker.upstream.port import Made, Rotation, Rotator, Site
from broker.upstream.terms import credential_text, read_terms, require_credentials

REFRESH = "refresh_token"
"""The credential, where the grant is by refresh token."""
CONTENT_TYPE = "text/plain"


class RotatorTerms(ClientTerms, frozen=True, kw_only=True):
    """Settings. test_url: answers 2xx to a GET with a good token, and only then; without it a new token is believed."""

    grant: Literal["refresh_token", "client_credentials"]
    test_url: str = ""


@asynccontextmanager
async def open_oauth2(site: Site) -> AsyncIterator[Rotator]:
    """The rotator, with connections of its own."""
    async with open_http() as http:
        yield OAuth2(http=http, site=site)


class OAuth2:
    """As the port says."""

    def __init__(self, *, http: Http, site: Site) -> None:
        self._http = http
        self._site = site

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """As the port says."""
        terms = read_terms(RotatorTerms, settings)
        check_client(terms, self._site)
        if terms.test_url:
            allowed_url("test_url", terms.test_url, allowed=self._site.hosts)
        needed = client_credentials(terms)
        if terms.grant == "refresh_token":
            needed = (*needed, REFRESH)
        elif terms.client_auth == "none":
            raise BadSettings("the grant client_credentials is for clients that prove themselves; set client_auth")
        require_credentials(credentials, needed=needed)

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        """As the port says. What an attempt before was given nobody knows, and ends by itself.

        Refused: also where that attempt used up a refresh token that serves once. Somebody has to authorise again.
        """
        terms, endpoint = self._reach(rotation)
        if terms.grant == "refresh_token":
            given = await endpoint.by_refresh_token(credential_text(rotation, REFRESH))
        else:
            given = await endpoint.by_client_credentials()
        return Made(
            value=given.access,
            content_type=CONTENT_TYPE,
            credentials={REFRESH: given.refresh} if given.refresh is not None and terms.grant == REFRESH else {},
            expires_at=given.expires_at,
        )

    async def set(self, rotation: Rotation, new: Secret, current: Secret | None) -> None:
        """As the port says: the server knows the token, as it gave it."""

    async def test(self, rotation: Rotation, new: Secret) -> None:
        """As the port says, where `test_url` is set; without it the server's word is enough."""
        terms = read_terms(RotatorTerms, rotation.settings)
        if terms.test_url:
            await self._try(allowed_url("test_url", terms.test_url, allowed=self._site.hosts), new)

    async def finish(self, rotation: Rotation, new: Secret, former: Secret | None) -> None:
        """As the port says, where `revoke_url` is set; without it the token ends by itself."""
        if former is not None and former.reveal() != new.reveal():
            await self._reach(rotation)[1].revoke(former)

    async def abandon(self, rotation: Rotation, new: Secret | None) -> None:
        """As the port says, where `revoke_url` is set; without it the token ends by itself."""
        if new is not None:
            await self._reach(rotation)[1].revoke(new)

    def _reach(self, rotation: Rotation) -> tuple[RotatorTerms, TokenEndpoint]:
        terms = read_terms(RotatorTerms, rotation.settings)
        return terms, endpoint_for(terms, rotation, http=self._http, site=self._site)

    async def _try(self, url: URL, token: Secret) -> None:
        headers = {"Authorization": f"Bearer {spelt(token)}"}
        answer = await self._http.send("GET", url, headers=headers)
        if not answer.ok:
            raise status_error(answer, host=str(url.host), remedy="it does not take the new token; check scope")
