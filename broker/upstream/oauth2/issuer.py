"""The issuer `oauth2`: an access token for each lease, by the client's own credentials (RFC 6749 §4.4).

With `revoke_url` it is ended with its lease (RFC 7009). Without, and where the value was lost with whoever had it, it
ends by itself, as the server said when it gave it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

from broker.secret import Secret
from broker.upstream.errors import BadSettings, EndsByItself, Failed
from broker.upstream.http import Http, open_http
from broker.upstream.oauth2.endpoint import ClientTerms, TokenEndpoint, check_client, client_credentials, endpoint_for
from broker.upstream.port import Issued, Issuer, Site, Wanted
from broker.upstream.terms import read_terms, require_credentials

CONTENT_TYPE = "text/plain"
UNTIL = "until"
"""In the handle: when the token ends by itself, once that is known."""


@asynccontextmanager
async def open_oauth2_issuer(site: Site) -> AsyncIterator[Issuer]:
    """The issuer, with connections of its own."""
    async with open_http() as http:
        yield OAuth2Issuer(http=http, site=site)


class OAuth2Issuer:
    """As the port says."""

    def __init__(self, *, http: Http, site: Site) -> None:
        self._http = http
        self._site = site

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """As the port says."""
        terms = read_terms(ClientTerms, settings)
        check_client(terms, self._site)
        if terms.client_auth == "none":
            raise BadSettings("a token for the client itself is for clients that prove themselves; set client_auth")
        require_credentials(credentials, needed=client_credentials(terms))

    def handle(self, wanted: Wanted) -> Mapping[str, str]:
        """As the port says: the server knows a token by nothing but itself."""
        return {}

    async def issue(self, wanted: Wanted) -> Issued:
        """As the port says. What an attempt before was given nobody knows, and it ends by itself.

        Failed: the token would never end.
        """
        terms = read_terms(ClientTerms, wanted.settings)
        given = await self._endpoint(terms, wanted).by_client_credentials()
        if given.expires_at is None and not terms.revoke_url:
            raise Failed("the server does not say when its tokens end, and none could be ended; set revoke_url")
        return Issued(
            value=given.access,
            content_type=CONTENT_TYPE,
            ends_at=given.expires_at,
            handle={} if given.expires_at is None else {UNTIL: given.expires_at.isoformat()},
        )

    async def revoke(self, wanted: Wanted, handle: Mapping[str, str], value: Secret | None) -> None:
        """As the port says. What nobody knows any more, and never did by a time, counts as gone."""
        terms = read_terms(ClientTerms, wanted.settings)
        if value is not None and terms.revoke_url:
            await self._endpoint(terms, wanted).revoke(value)
            return
        until = handle.get(UNTIL)
        if until is not None and (at := datetime.fromisoformat(until)) > self._site.clock.now():
            raise EndsByItself("nobody can end this token; it ends by itself", at=at)

    def _endpoint(self, terms: ClientTerms, wanted: Wanted) -> TokenEndpoint:
        return endpoint_for(terms, wanted, http=self._http, site=self._site)
