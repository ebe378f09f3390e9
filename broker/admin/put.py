"""Store a value as the next version of a token; the first one makes the token.

What happens to tokens and versions afterwards is in `tokens`, many at once in `batch`.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from broker.admin.asked import NewVersion
from broker.admin.errors import Exists
from broker.admin.keys import DEFAULT_KEYRING
from broker.admin.kinds import check_versioned
from broker.admin.once import Once, nothing_beside
from broker.admin.plan import Plan, carry_out, check_revision
from broker.admin.sealing import Sealer, relies_on
from broker.admin.stages import check_not_rolling, step_down
from broker.admin.token_book import TokenBook
from broker.admin.values import check_content_type, check_previous_valid_s, check_value
from broker.audit.entries import TokenChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import Conflict, NotFound
from broker.policy.labels import parse_labels
from broker.policy.names import parse_keyring_name, parse_token_name
from storage.records import KeyringRecord, TokenRecord, VersionRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Put:
    """What was stored."""

    token: TokenRecord
    version: VersionRecord


class TokenPutter:
    """Seals first, then commits: a value that cannot be sealed leaves no trace."""

    def __init__(self, *, authority: Authority, book: TokenBook, sealer: Sealer, clock: Clock) -> None:
        self._authority = authority
        self._book = book
        self._sealer = sealer
        self._clock = clock

    async def put(
        self, new: NewVersion, *, actor: str, if_match: int | None = None, once: Once = nothing_beside
    ) -> Put:
        """Store a value as the token's next version; the first one makes the token. Current at once, unless pending.

        if_match 0: only if there is no such token yet (Exists). BadRequest and below: a name, value, label or type out
        of bounds. NotFound: no such keyring. Conflict: the token belongs to another keyring. PreconditionFailed.
        RolloutRunning: a version is being rolled out, and this one would be current.
        """
        return await carry_out(self._authority, lambda: self.planned(new, actor=actor, if_match=if_match, once=once))

    async def planned(
        self, new: NewVersion, *, actor: str, if_match: int | None = None, once: Once = nothing_beside
    ) -> Plan[Put]:
        """What `put` would commit, with the value sealed, for a commit that does more. Raises as `put`."""
        parse_token_name(new.token)
        check_value(new.token, new.value)
        content_type = check_content_type(new.content_type, new.value)
        if new.keyring is not None:
            parse_keyring_name(new.keyring)
        if new.labels is not None:
            parse_labels(new.labels)
        if new.previous_valid_s is not None:
            check_previous_valid_s(new.previous_valid_s)
        before = await self._book.find(new.token)
        self._check_put(new, before, if_match)
        head = self._head(new, before)
        down = () if before is None or new.stage == "pending" else await self._book.stepping_down(before)
        version, ring = await self._sealed(new, head, content_type, actor)
        return Plan(
            result=Put(token=head, version=version),
            entries=(self._entry(version, actor),),
            inserts=(version,) if before else (head, version),
            updates=(head, *step_down(down)) if before else (),
            expects=(relies_on(ring),),
            aside=await once(str(version.version)),
        )

    def _check_put(self, new: NewVersion, before: TokenRecord | None, if_match: int | None) -> None:
        if before is None:
            if if_match:
                raise NotFound(f"token {new.token}: there is no such token, so it has no revision {if_match}")
            return
        if if_match == 0:
            raise Exists(f"token {new.token} exists already; put without if-none-match adds a version")
        check_revision(f"token {new.token}", before, if_match)
        check_versioned(self._authority, before)
        if new.stage == "current":
            check_not_rolling(before)
        if new.keyring is not None and new.keyring != before.keyring:
            raise Conflict(
                f"token {new.token} belongs to keyring {before.keyring}, not {new.keyring}; to move it, "
                "delete it and put it again"
            )

    def _head(self, new: NewVersion, before: TokenRecord | None) -> TokenRecord:
        fields: dict[str, object] = {}
        now = self._clock.now()
        if new.labels is not None:
            fields["labels"] = dict(new.labels)
        if new.previous_valid_s is not None:
            fields["previous_valid_s"] = new.previous_valid_s
        if before is not None:
            latest = before.latest + 1
            if new.stage == "current":
                fields.update(current=latest, previous=before.current)
            return msgspec.structs.replace(before, rev=before.rev + 1, updated_at=now, latest=latest, **fields)
        made = TokenRecord(
            name=new.token,
            keyring=new.keyring or DEFAULT_KEYRING,
            labels={},
            disabled=False,
            current=1 if new.stage == "current" else 0,
            latest=1,
            previous_valid_s=0,
            created_at=now,
            updated_at=now,
        )
        return msgspec.structs.replace(made, **fields)

    async def _sealed(
        self, new: NewVersion, head: TokenRecord, content_type: str, actor: str
    ) -> tuple[VersionRecord, KeyringRecord]:
        sealed, ring = await self._sealer.seal(
            token=head.name, version=head.latest, keyring=head.keyring, value=new.value
        )
        version = VersionRecord(
            token=head.name,
            version=head.latest,
            stage=new.stage,
            content_type=content_type,
            keyring=sealed.keyring,
            data_key=sealed.data_key,
            fmt=sealed.fmt,
            sealed=sealed.blob,
            created_at=self._clock.now(),
            created_by=actor,
        )
        return version, ring

    def _entry(self, version: VersionRecord, actor: str) -> TokenChanged:
        return TokenChanged(
            at=self._clock.now(), actor=actor, token=version.token, change="put", version=version.version
        )
