"""The token endpoint of an authorization server, as its client sees it: asks for tokens, and revokes them.

RFC 6749 §2.3.1 (how a client proves itself), §4.4 and §6 (grants), §5 (answers); RFC 7009 (revocation). Which tokens
are wanted, and what becomes of them, is decided by the rotator and the issuer.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal
from urllib.parse import quote_plus, urlencode

import msgspec
from yarl import URL

from broker.secret import Secret
from broker.upstream.destinations import allowed_url
from broker.upstream.errors import BadSettings, Failed, Refused, Unreachable, UpstreamError
from broker.upstream.http import Answer, Http, read_json, status_error
from broker.upstream.port import Site, Work
from broker.upstream.terms import Terms, credential_text

Token = Annotated[str, msgspec.Meta(pattern=r"^[\x21-\x7e]{1,16384}\Z")]
"""A token as RFC 6749 appendix A.12 spells one, without spaces, which no header carries; not longer than this."""
_LIFE_S_MAX = 10 * 365 * 86_400

_MEANINGS: Mapping[str, tuple[type[UpstreamError], str]] = {
    "invalid_client": (BadSettings, "check client_id, client_auth and the credential client_secret"),
    "invalid_grant": (Refused, "the refresh token has ended, was revoked or is used up; authorise again, and put it"),
    "unauthorized_client": (BadSettings, "the client may not use this grant; allow it there"),
    "unsupported_grant_type": (BadSettings, "the server does not know this grant; check grant and token_url"),
    "invalid_scope": (BadSettings, "check the setting scope"),
    "invalid_target": (BadSettings, "check the settings resource and audience"),
    "invalid_request": (BadSettings, "check the settings, client_auth above all"),
    "unsupported_token_type": (BadSettings, "the server revokes no such tokens; leave out revoke_url"),
    "temporarily_unavailable": (Unreachable, "it will be tried again"),
    "server_error": (Unreachable, "it will be tried again"),
}
"""Error codes of RFC 6749 §5.2, RFC 7009 §2.2.1 and RFC 8707 §2; the last two are §4.1.2.1's, which servers give here
too. No other text of an answer is ever repeated.
"""


class ClientTerms(Terms, frozen=True, kw_only=True):
    """Settings of whoever asks for tokens. client_auth: how the client proves itself; `none` for public clients.

    audience: not of the standard, but asked for by many servers. resource: RFC 8707.
    """

    token_url: str
    client_id: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    client_auth: Literal["basic", "post", "none"] = "basic"
    revoke_url: str = ""
    scope: str = ""
    audience: str = ""
    resource: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """What the endpoint gave. refresh: a refresh token that takes the place of the one that was shown."""

    access: Secret
    refresh: Secret | None
    expires_at: datetime | None


class _Granted(msgspec.Struct):
    access_token: Token
    token_type: str
    expires_in: Annotated[int, msgspec.Meta(ge=0, le=_LIFE_S_MAX)] | None = None
    refresh_token: Token | None = None


class _Problem(msgspec.Struct):
    error: str


class TokenEndpoint:
    """An authorization server, for one client of it."""

    def __init__(self, *, http: Http, site: Site, terms: ClientTerms, client_secret: str | None) -> None:
        self._http = http
        self._clock = site.clock
        self._hosts = site.hosts
        self._terms = terms
        self._client_secret = client_secret

    async def by_refresh_token(self, refresh_token: str) -> Tokens:
        """New tokens for a refresh token (RFC 6749 §6), which may be used up by that.

        BadSettings, Refused, Unreachable: by the server's error code. Failed: no answer of the standard's form.
        """
        return await self._ask({"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def by_client_credentials(self) -> Tokens:
        """Tokens for the client itself (RFC 6749 §4.4). Errors: as above."""
        return await self._ask({"grant_type": "client_credentials"})

    async def revoke(self, token: Secret, *, hint: Literal["access_token", "refresh_token"] = "access_token") -> None:
        """End a token (RFC 7009); one that is no token any more counts as ended. Without revoke_url nothing happens.

        Unreachable, Refused, BadSettings: as above.
        """
        if self._terms.revoke_url:
            url = allowed_url("revoke_url", self._terms.revoke_url, allowed=self._hosts)
            answer = await self._post(url, {"token": spelt(token), "token_type_hint": hint})
            if not answer.ok:
                raise _meaning(answer, url)

    async def _ask(self, asked: Mapping[str, str]) -> Tokens:
        url = allowed_url("token_url", self._terms.token_url, allowed=self._hosts)
        wanted = {name: getattr(self._terms, name) for name in ("scope", "audience", "resource")}
        # Life counts from before the request: the server began to count before its answer came.
        began = self._clock.now()
        answer = await self._post(url, {**asked, **{name: value for name, value in wanted.items() if value}})
        if not answer.ok:
            raise _meaning(answer, url)
        granted = read_json(answer, _Granted, host=str(url.host))
        if granted.token_type.lower() != "bearer":
            raise Failed(f"{url.host} gave a token that is no bearer token, which workers could not use")
        return Tokens(
            access=Secret(granted.access_token.encode()),
            refresh=None if granted.refresh_token is None else Secret(granted.refresh_token.encode()),
            expires_at=None if granted.expires_in is None else began + timedelta(seconds=granted.expires_in),
        )

    async def _post(self, url: URL, form: Mapping[str, str]) -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        told = dict(form)
        if self._terms.client_auth == "basic":
            # §2.3.1 has both parts form-encoded before they are joined.
            pair = f"{quote_plus(self._terms.client_id)}:{quote_plus(self._client_secret or '')}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        else:
            told["client_id"] = self._terms.client_id
            if self._terms.client_auth == "post":
                told["client_secret"] = self._client_secret or ""
        return await self._http.send("POST", url, headers=headers, body=urlencode(told).encode())


def check_client(terms: ClientTerms, site: Site) -> None:
    """Return if the URLs can be used. BadSettings: names the setting that cannot."""
    allowed_url("token_url", terms.token_url, allowed=site.hosts)
    if terms.revoke_url:
        allowed_url("revoke_url", terms.revoke_url, allowed=site.hosts)


def client_credentials(terms: ClientTerms) -> tuple[str, ...]:
    """The credentials with which such a client proves itself."""
    return () if terms.client_auth == "none" else ("client_secret",)


def endpoint_for(terms: ClientTerms, work: Work, *, http: Http, site: Site) -> TokenEndpoint:
    """The endpoint that a policy's settings and credentials lead to. BadSettings: client_secret is missing."""
    secret = None if terms.client_auth == "none" else credential_text(work, "client_secret")
    return TokenEndpoint(http=http, site=site, terms=terms, client_secret=secret)


def _meaning(answer: Answer, url: URL) -> UpstreamError:
    host = str(url.host)
    try:
        code = msgspec.json.decode(answer.content, type=_Problem).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        code = ""
    if code in _MEANINGS and 400 <= answer.status < 600:
        kind, remedy = _MEANINGS[code]
        return kind(f"{host} answered {code}; {remedy}")
    if answer.status == 401:
        return BadSettings(f"{host} does not know the client; {_MEANINGS['invalid_client'][1]}")
    return status_error(answer, host=host, remedy="see its own logs")


def spelt(token: Secret) -> str:
    """A token as it goes into a form or a header. Refused: no such server ever gave it."""
    content = token.reveal()
    if not content or not all(0x21 <= byte <= 0x7E for byte in content):
        raise Refused("the value is no token that an authorization server gives")
    return content.decode("ascii")
