"""Who asks, and may he: credentials, roles and how often. What he asks for is read only afterwards."""

from __future__ import annotations

import hmac
import re
from typing import Final

from broker.admin.credentials import credential_sha256
from broker.admin.roles import Role
from broker.api.limits import ApiLimits, Buckets, Rate
from broker.api.refusals import Refusals
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import Denied, Unauthenticated
from broker.sources import source_key
from storage.records import AdminRecord

_BEARER: Final = re.compile(r"bearer +([!-~]{1,256})", re.IGNORECASE)


class Gate:
    """Stands before every operation. All its answers to a wrong credential are alike; the audit log has the reason."""

    def __init__(self, *, authority: Authority, refusals: Refusals, limits: ApiLimits, clock: Clock) -> None:
        self._authority = authority
        self._refusals = refusals
        self._clock = clock
        self._by_address = self._buckets(limits.address, limits)
        self._by_credential = self._buckets(limits.credential, limits)
        self._failures = self._buckets(limits.failures, limits)

    def arrive(self, source: str) -> None:
        """Count a request. RateLimited: too many from this address."""
        self._by_address.take(source_key(source), "requests from this address")

    def arrive_unknown(self, source: str) -> None:
        """Let a request in that proves itself later. RateLimited: too many failures from this address."""
        self._failures.check(source_key(source), "failed attempts from this address")

    def count_failure(self, source: str) -> None:
        """Count a failed proof. RateLimited: too many from this address."""
        self._failures.take(source_key(source), "failed attempts from this address")

    async def admit(self, authorization: str | None, *, source: str, roles: frozenset[Role], operation: str) -> str:
        """The name of the admin whose credential this is and who has one of the roles.

        Unauthenticated: no, unknown, disabled or expired credential, all alike. RateLimited: too many of those from
        this address (a right credential is never refused for others' failures), or too many requests with this one.
        Denied: none of the roles.
        """
        try:
            admin = self._identify(authorization)
        except _Refused as refused:
            self.count_failure(source)
            await self._refusals.note(actor="system", source=source, reason=refused.reason)
            raise Unauthenticated("send a valid admin credential as authorization: Bearer tba_…") from None
        self._by_credential.take(admin.name, "requests with this credential")
        if roles.isdisjoint(admin.roles):
            await self._refusals.note(actor=f"admin:{admin.name}", source=source, reason=f"no role for {operation}")
            raise Denied(f"{operation} needs one of the roles {', '.join(sorted(roles))}; ask an admin to do it")
        return admin.name

    def _identify(self, authorization: str | None) -> AdminRecord:
        match = None if authorization is None else _BEARER.fullmatch(authorization)
        if match is None:
            raise _Refused("no credential")
        given = credential_sha256(match[1])
        if given is None:
            raise _Refused("malformed credential")
        found = None
        # Every record is compared, in constant time each: neither a hit nor its place shows in how long it takes.
        for admin in self._authority.admins:
            if hmac.compare_digest(admin.credential_sha256, given):
                found = admin
        if found is None:
            raise _Refused("unknown credential")
        if found.disabled:
            raise _Refused(f"admin {found.name} is disabled")
        if found.expires_at is not None and found.expires_at <= self._clock.now():
            raise _Refused(f"admin {found.name} has expired")
        return found

    def _buckets(self, rate: Rate, limits: ApiLimits) -> Buckets:
        return Buckets(rate=rate, keys_max=limits.keys_max, monotonic=self._clock.monotonic)


class _Refused(Exception):
    """Why a credential is refused: for the audit log alone."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
