"""Read tokens and versions from storage, verified. What may be done with them is decided in `tokens`."""

from __future__ import annotations

import re
from typing import Final

from broker.admin.errors import InUse
from broker.admin.stored import Stored
from broker.authority.authority import Authority
from broker.errors import NotFound, Tampered
from broker.policy.names import is_token_name, parse_token_name
from storage.port import PAGE_MAX, Page
from storage.records import IssuedRecord, RolloutRecord, TokenRecord, VersionRecord
from storage.table import Key

ISSUED_COUNTED_MAX: Final = 10_000
_PREFIX: Final = re.compile(r"[a-z0-9._/-]{0,511}")
"""What a name may begin with; nothing else is asked of storage."""


class TokenBook:
    """Tokens as stored; every row that leaves here carried a valid MAC (else Tampered)."""

    def __init__(self, *, stored: Stored, authority: Authority) -> None:
        self._stored = stored
        self._authority = authority

    async def find(self, name: str) -> TokenRecord | None:
        """The token, or None. NameRefused: no token can be called so."""
        parse_token_name(name)
        record = await self._stored.get(TokenRecord, (name,))
        if record is not None:
            self._authority.verify(record)
        return record

    async def token(self, name: str) -> TokenRecord:
        """The token. NotFound: there is none of that name."""
        record = await self.find(name)
        if record is None:
            raise NotFound(f"token {name}: there is no such token; `token list` shows those there are")
        return record

    async def version(self, name: str, version: int) -> VersionRecord:
        """One version. NotFound: the token never had it."""
        parse_token_name(name)
        record = await self._stored.get(VersionRecord, (name, version))
        if record is None:
            raise NotFound(f"token {name} has no version {version}; `token versions` shows those there are")
        self._authority.verify(record)
        return record

    async def rollout(self, name: str) -> RolloutRecord | None:
        """The latest rollout of a token, or None."""
        record = await self._stored.get(RolloutRecord, (name,))
        if record is not None:
            self._authority.verify(record)
        return record

    async def stepping_down(self, token: TokenRecord) -> tuple[VersionRecord, ...]:
        """The current version and the previous one, those there are. Tampered: the row of one is missing."""
        records = []
        # Another put may come between these readings, and step them down: the commit will then conflict.
        for stage, number in (("current", token.current), ("previous", token.previous)):
            if not number:
                continue
            record = await self._stored.get(VersionRecord, (token.name, number))
            if record is None:
                raise Tampered(f"token {token.name}: its {stage} version {number} is missing from the database")
            self._authority.verify(record)
            records.append(record)
        return tuple(records)

    async def check_unissued(self, token: TokenRecord, *, whereupon: str) -> None:
        """InUse: the token is enabled, so that a value may be made for a lease any moment, or some exist upstream.

        While it is disabled none comes: the commit that precedes a making relies on the token's row.
        """
        left = (
            0
            if not token.disabled
            else await self._stored.count(IssuedRecord, index="token", prefix=(token.name,), limit=ISSUED_COUNTED_MAX)
        )
        if left or not token.disabled:
            why = f"{left} values of it exist upstream" if left else "it is enabled"
            raise InUse(
                f"token {token.name}: {why}; disable it, wait until `issued list` shows none of it, then {whereupon}"
            )

    async def tokens(self, *, prefix: str, after: Key | None, limit: int) -> Page[TokenRecord]:
        """One page of the tokens whose names begin with `prefix`, in the order of their names."""
        if _PREFIX.fullmatch(prefix) is None:
            return Page(records=[], next=None)
        records: list[TokenRecord] = []
        if after is None and is_token_name(prefix):
            exact = await self._stored.get(TokenRecord, (prefix,))
            records += [] if exact is None else [exact]
        # Names that begin with the prefix and are longer come right behind the prefix itself.
        page = await self._stored.select(TokenRecord, after=after or (prefix,), limit=limit)
        records += [record for record in page.records if record.name.startswith(prefix)]
        ended = page.next is None or not page.records[-1].name.startswith(prefix)
        for record in records:
            self._authority.verify(record)
        return Page(records=records, next=None if ended else page.next)

    async def versions(self, name: str, *, after: Key | None, limit: int = PAGE_MAX) -> Page[VersionRecord]:
        """One page of a token's versions, newest first; sealed values are in the records. NotFound: no such token."""
        await self.token(name)
        page = await self._stored.select(VersionRecord, prefix=(name,), after=after, descending=True, limit=limit)
        for record in page.records:
            self._authority.verify(record)
        return page
