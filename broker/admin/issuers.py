"""Tokens whose values are made for each lease: how, within which bounds, and what of it exists upstream.

Making and ending values is `broker.leases`'s. What was made is ended with the very settings it was made with: so these
change only while nothing is there that they made, and nothing can come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec

from broker.admin.asked import ISSUED_MAX, NewIssuer
from broker.admin.errors import Exists, InUse, WrongKind
from broker.admin.keys import DEFAULT_KEYRING, KeyAdmin
from broker.admin.plan import Plan, carry_out, check_revision
from broker.admin.signing_in import SigningIn
from broker.admin.stored import Stored
from broker.admin.token_book import TokenBook
from broker.audit.entries import IssuedEnded, IssuerChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import BadRequest, Conflict, NotFound, Tampered, Unavailable
from broker.policy.errors import excerpt
from broker.policy.labels import parse_labels
from broker.policy.names import parse_token_name
from broker.upstream.catalog import ISSUERS, names, open_issuer
from broker.upstream.errors import UpstreamError
from broker.upstream.port import NOTE_CHARS_MAX, NOTES_MAX, Site
from storage.port import Delete, Expect, Page
from storage.records import IssuedRecord, IssuerRecord, TokenRecord
from storage.table import Key

LEASES_DEFAULT: Final = 100
WORKER_LEASES_DEFAULT: Final = 10
SETTING_CHARS_MAX: Final = 4096
CHECK_S: Final = 10.0
"""Longest time that an issuer may look at its settings."""


class IssuerAdmin:
    """Issuers as authority: every change is signed, audited and announced in one commit, together with its token."""

    def __init__(
        self,
        *,
        authority: Authority,
        stored: Stored,
        book: TokenBook,
        keys: KeyAdmin,
        signing_in: SigningIn,
        site: Site,
        clock: Clock,
    ) -> None:
        self._authority = authority
        self._stored = stored
        self._book = book
        self._keys = keys
        self._signing_in = signing_in
        self._site = site
        self._clock = clock

    def installed(self) -> tuple[str, ...]:
        """The names of the issuers that this replica has, sorted."""
        return names(ISSUERS)

    def get(self, token: str) -> IssuerRecord:
        """How the values of the token are made. NotFound: they are not made for leases."""
        record = self._authority.issuers.get((token,))
        if record is None:
            raise NotFound(f"token {token} has no issuer; `issuer list` shows those that have")
        return record

    async def set(self, new: NewIssuer, *, actor: str, if_match: int | None = None) -> IssuerRecord:
        """Have the values of a token made so; the first time makes the token.

        if_match: the revision of the issuer; 0: only if there is none yet (Exists). WrongKind: the token has values of
        its own, or is a pool, or its keyring's KMS decides per worker. InUse: another issuer, other settings or
        credentials, while the token is enabled or values of it exist upstream. BadRequest: out of bounds, or the issuer
        takes no such settings. CredentialRefused. NotFound: a credential or the keyring. PreconditionFailed.
        """
        parse_token_name(new.token)
        _check_texts("settings", new.settings)
        _check_texts("credentials", new.credentials)
        if new.labels is not None:
            parse_labels(new.labels)
        await self._signing_in.check(new.credentials, of=new.token)
        await self._check_settings(new)

        async def decide() -> Plan[IssuerRecord]:
            token = await self._book.find(new.token)
            before = self._authority.issuers.get((new.token,))
            self._check(new, token, before, if_match)
            after = self._next(new, before, actor)
            if token is None or before is None:
                head = self._token(new)
                return Plan(result=after, entries=self._entries("added", after, actor), inserts=(head, after))
            if before == after:
                return Plan(result=before, entries=())
            if _makes_otherwise(before, after):
                await self._book.check_unissued(token, whereupon="more of its issuer than the bounds can be changed")
            return Plan(
                result=after,
                entries=self._entries("updated", after, actor),
                updates=(after,),
                # Nothing is made while the token is disabled, and it is until this is written.
                expects=(Expect(TokenRecord, token.key, token.rev),),
            )

        return await carry_out(self._authority, decide)

    async def issued(self, *, token: str | None, after: Key | None, limit: int) -> Page[IssuedRecord]:
        """One page of what exists upstream, or is still on record as if it did: of one token, or of all.

        A row that another hand wrote says so as its error, and keeps none of the others from being shown.
        """
        if token is None:
            page = await self._stored.select(IssuedRecord, after=after, limit=limit)
        else:
            page = await self._stored.select(IssuedRecord, index="token", prefix=(token,), after=after, limit=limit)
        return Page(records=[self._shown(record) for record in page.records], next=page.next)

    async def forget(self, lease: str, *, actor: str) -> None:
        """Take it for gone upstream, because somebody has seen to that there. NotFound. InUse: its lease lives."""

        async def decide() -> Plan[None]:
            record = await self._stored.get(IssuedRecord, (lease,))
            if record is None:
                raise NotFound(f"lease {excerpt(lease)}: nothing that was made for it is on record; see `issued list`")
            if record.state != "ending":
                raise InUse(f"lease {lease}: what was made for it is in use; `lease revoke` it first")
            entry = IssuedEnded(
                at=self._clock.now(),
                actor=actor,
                lease=lease,
                token=record.token,
                issuer=record.issuer,
                attempts=record.attempt,
                forgotten=True,
            )
            return Plan(result=None, entries=(entry,), deletes=(Delete(IssuedRecord, record.key, record.rev),))

        await carry_out(self._authority, decide)

    def _shown(self, record: IssuedRecord) -> IssuedRecord:
        try:
            self._authority.verify(record)
        except Tampered as error:
            return msgspec.structs.replace(record, error=error.message[:NOTE_CHARS_MAX])
        return record

    async def _check_settings(self, new: NewIssuer) -> None:
        try:
            async with asyncio.timeout(CHECK_S), open_issuer(new.issuer, self._site) as issuer:
                issuer.check(new.settings, new.credentials)
        except UpstreamError as error:
            raise BadRequest(f"issuer {excerpt(new.issuer)}: {error.message}") from None
        except TimeoutError:
            raise Unavailable(f"issuer {new.issuer}: it took over {CHECK_S:g} s to look at its settings") from None

    def _check(
        self, new: NewIssuer, token: TokenRecord | None, before: IssuerRecord | None, if_match: int | None
    ) -> None:
        if token is not None and token.kind != "issued":
            whose = "a pool" if token.kind == "pool" else "a token with values of its own"
            raise WrongKind(f"token {new.token} is {whose}; choose another name for one whose values are made")
        if before is None and if_match:
            raise NotFound(f"token {new.token}: it has no issuer, so there is no revision {if_match} of it")
        if before is not None and if_match == 0:
            raise Exists(f"token {new.token} has an issuer already; without if-none-match it is changed")
        if before is not None:
            check_revision(f"the issuer of {new.token}", before, if_match)
        if token is not None and new.keyring not in {None, token.keyring}:
            raise Conflict(f"token {new.token} belongs to keyring {token.keyring}; delete it to choose another one")
        if token is not None and new.labels not in (None, token.labels):
            raise BadRequest(f"token {new.token} exists; its labels are changed as those of any token")
        ring = self._keys.keyring(token.keyring if token is not None else new.keyring or DEFAULT_KEYRING)
        if ring.authorize == "kms":
            raise WrongKind(
                f"keyring {ring.name}: its KMS decides for each worker, and what is made for leases the broker itself "
                "opens to end it; choose another keyring"
            )

    def _next(self, new: NewIssuer, before: IssuerRecord | None, actor: str) -> IssuerRecord:
        bounds = {
            "leases_max": _or(new.leases_max, None if before is None else before.leases_max, LEASES_DEFAULT),
            "worker_leases_max": _or(
                new.worker_leases_max, None if before is None else before.worker_leases_max, WORKER_LEASES_DEFAULT
            ),
        }
        for name, bound in bounds.items():
            if not 1 <= bound <= ISSUED_MAX:
                raise BadRequest(f"{name}: {bound} is not 1 to {ISSUED_MAX}")
        after = IssuerRecord(
            token=new.token,
            issuer=new.issuer,
            settings=dict(new.settings),
            credentials=dict(new.credentials),
            created_by=actor if before is None else before.created_by,
            created_at=self._clock.now() if before is None else before.created_at,
            leases_max=bounds["leases_max"],
            worker_leases_max=bounds["worker_leases_max"],
        )
        if before is None or before == msgspec.structs.replace(after, rev=before.rev, mac=before.mac):
            return before or after
        return msgspec.structs.replace(after, rev=before.rev + 1)

    def _token(self, new: NewIssuer) -> TokenRecord:
        now = self._clock.now()
        return TokenRecord(
            name=new.token,
            keyring=new.keyring or DEFAULT_KEYRING,
            labels=dict(new.labels or {}),
            disabled=False,
            current=0,
            latest=0,
            previous_valid_s=0,
            created_at=now,
            updated_at=now,
            kind="issued",
        )

    def _entries(self, change: str, record: IssuerRecord, actor: str) -> tuple[IssuerChanged, ...]:
        now = self._clock.now()
        opened = tuple(sorted(record.credentials.values()))
        return (
            IssuerChanged(
                at=now, actor=actor, token=record.token, change=change, issuer=record.issuer, credentials=opened
            ),
        )


def _makes_otherwise(before: IssuerRecord, after: IssuerRecord) -> bool:
    made_by = ("issuer", "settings", "credentials")
    return any(getattr(before, name) != getattr(after, name) for name in made_by)


def _or(*values: int | None) -> int:
    return next(value for value in values if value is not None)


def _check_texts(what: str, texts: Mapping[str, str]) -> None:
    if len(texts) > NOTES_MAX * 2:
        raise BadRequest(f"{what}: at most {NOTES_MAX * 2} are allowed, not {len(texts)}")
    for name, text in texts.items():
        if not 1 <= len(name) <= NOTE_CHARS_MAX or len(text) > SETTING_CHARS_MAX:
            raise BadRequest(
                f"{what}: {excerpt(name)}: names have 1 to {NOTE_CHARS_MAX} characters, texts at most "
                f"{SETTING_CHARS_MAX}"
            )
