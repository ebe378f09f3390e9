"""Read policies, how far rotations have come, and who still uses a version. Every row was verified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from broker.admin.ports import LeaseDesk
from broker.admin.stored import Stored
from broker.authority.authority import Authority
from broker.errors import NotFound
from broker.policy.names import parse_token_name
from storage.port import PAGE_MAX
from storage.records import LeaseRecord, RotationPolicyRecord, RotationRecord
from storage.records.rotation import LeaseName
from storage.table import Key

NAMED_MAX: Final = 50
"""Most leases that are named of those that still use a version."""


class RotationBook:
    """What is on record of rotations. Unavailable: storage did not answer. Tampered: a row is not this cluster's."""

    def __init__(self, *, authority: Authority, stored: Stored, leases: LeaseDesk) -> None:
        self._authority = authority
        self._stored = stored
        self._leases = leases

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

    async def users(self, token: str, version: int) -> tuple[LeaseName, ...]:
        """The live leases of the current version whose workers use this one, as far as anybody knows; the first 50.

        A worker uses it that was given it, until it has said that it applied another one. Those that lease the
        previous version are not asked: they lose it when it is retired, and know that.
        """
        users: list[LeaseName] = []
        after: Key | None = None
        while len(users) < NAMED_MAX:
            page = await self._leases.list_leases(
                token=token, worker=None, at=None, include_ended=False, after=after, limit=PAGE_MAX
            )
            users += [
                LeaseName(lease=each.lease, worker=each.worker, why=_why(each))
                for each in page.records
                if each.stage == "current" and _uses(each, version)
            ]
            after = page.next
            if after is None:
                break
        return tuple(users[:NAMED_MAX])


def _uses(lease: LeaseRecord, version: int) -> bool:
    if lease.version == version:
        return True
    waits = lease.pushed_at is not None and lease.acked_version != lease.version
    return waits and any(past.version == version for past in lease.past)


def _why(lease: LeaseRecord) -> str:
    return "could not apply the new version" if lease.ack_failed else ""
