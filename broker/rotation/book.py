"""Read policies, and how far rotations have come. Every row was verified."""

from __future__ import annotations

from collections.abc import Sequence

from broker.admin.stored import Stored
from broker.authority.authority import Authority
from broker.errors import NotFound
from broker.policy.names import parse_token_name
from storage.records import RotationPolicyRecord, RotationRecord


class RotationBook:
    """What is on record of rotations. Unavailable: storage did not answer. Tampered: a row is not this cluster's."""

    def __init__(self, *, authority: Authority, stored: Stored) -> None:
        self._authority = authority
        self._stored = stored

    def policy(self, token: str) -> RotationPolicyRecord:
        """The token's policy. NotFound: it has none."""
        found = self._authority.rotation_policies.get((parse_token_name(token),))
        if found is None:
            raise NotFound(f"token {token} has no rotation policy; set one with `rotation set`")
        return found

    async def state(self, token: str) -> RotationRecord | None:
        """How far the token's rotation has come; None: it has no policy."""
        found = await self._stored.get(RotationRecord, (token,))
        if found is not None:
            self._authority.verify(found)
        return found

    async def states(self, tokens: Sequence[str]) -> dict[str, RotationRecord]:
        """The same of at most `PAGE_MAX` tokens."""
        found = await self._stored.get_many(RotationRecord, [(token,) for token in tokens])
        for record in found.values():
            self._authority.verify(record)
        return {record.token: record for record in found.values()}
