"""The rotator `webhook`: asks a service of the operator's own for each step, over signed HTTP.

What is sent and what may come back is specified in docs/spec/rotator-webhook.md. Only hosts that the configuration
names in `rotation.webhooks` are called: whoever may write a policy must not thereby reach every address of the network.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from yarl import URL

from broker.secret import Secret
from broker.upstream.destinations import WEBHOOKS, allowed_url
from broker.upstream.document import read_made, told
from broker.upstream.errors import Failed
from broker.upstream.http import Http, open_http, status_error
from broker.upstream.port import Made, Rotation, Rotator, Site
from broker.upstream.terms import Terms, credential_text, read_terms, require_credentials
from broker.upstream.webhook.signing import read_key, signed_headers

KEY = "signing_key"
"""The credential whose holder alone can make such calls."""


class WebhookTerms(Terms, frozen=True, kw_only=True):
    """Settings. url: where each step is sent."""

    url: str


@asynccontextmanager
async def open_webhook(site: Site) -> AsyncIterator[Rotator]:
    """The rotator, with connections of its own."""
    async with open_http() as http:
        yield Webhook(http=http, site=site)


class Webhook:
    """As the port says, as far as the service keeps the specification."""

    def __init__(self, *, http: Http, site: Site) -> None:
        self._http = http
        self._site = site

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """As the port says. BadSettings also: the configuration does not allow the host."""
        self._url(settings)
        require_credentials(credentials, needed=(KEY,))

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        """As the port says: the service's value, or one that is made here because the service says how long."""
        host, content = await self._call("create", rotation, None, current)
        made = read_made(f"the service at {host}", content)
        if made.credentials:
            raise Failed(f"the service at {host} answered with credentials, and may replace none; leave them out")
        return made

    async def set(self, rotation: Rotation, new: Secret, current: Secret | None) -> None:
        """As the port says."""
        await self._call("set", rotation, new, current)

    async def test(self, rotation: Rotation, new: Secret) -> None:
        """As the port says."""
        await self._call("test", rotation, new, None)

    async def finish(self, rotation: Rotation, new: Secret, former: Secret | None) -> None:
        """As the port says."""
        await self._call("finish", rotation, new, former)

    async def abandon(self, rotation: Rotation, new: Secret | None) -> None:
        """As the port says."""
        await self._call("abandon", rotation, new, None)

    async def _call(
        self, step: str, rotation: Rotation, new: Secret | None, current: Secret | None
    ) -> tuple[str, bytes]:
        """Whom was called, and what he answered."""
        url = self._url(rotation.settings)
        # The key is what proves the call; it is not part of it.
        body = told(step, replace(rotation, credentials={}), {}, new=new, current=current)
        headers = signed_headers(
            read_key(credential_text(rotation, KEY)),
            message=f"{rotation.id}_{step}",
            timestamp=math.floor(self._site.clock.now().timestamp()),
            body=body,
        )
        answer = await self._http.send("POST", url, headers={"Content-Type": "application/json", **headers}, body=body)
        if not answer.ok:
            raise status_error(answer, host=str(url.host), remedy=f"the step {step} was not done; see its own logs")
        return str(url.host), answer.content

    def _url(self, settings: Mapping[str, str]) -> URL:
        url = read_terms(WebhookTerms, settings).url
        return allowed_url("url", url, allowed=self._site.webhooks, listed=WEBHOOKS)
