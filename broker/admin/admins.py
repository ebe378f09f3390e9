"""Make operators and change them, so that there is always one left who can. Who they are at a request: `broker.api`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from broker.admin.credentials import credential_sha256, mint_credential
from broker.admin.errors import Exists, LastAdmin, TooMany
from broker.admin.instants import parse_expiry
from broker.admin.once import Once, nothing_beside
from broker.admin.plan import Plan, carry_out, check_revision
from broker.admin.roles import Role, parse_roles
from broker.audit.entries import AdminChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import NotFound
from broker.policy.names import parse_admin_name
from broker.secret import Secret
from storage.port import Delete
from storage.records import AdminRecord

ADMINS_MAX: Final = 1000
FIRST_ADMIN: Final = "root"
"""What `init` calls the first admin, who has the role admin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Minted:
    """An admin and the credential that was made for it, shown once; whoever takes it wipes it."""

    record: AdminRecord
    credential: Secret


class AdminAdmin:
    """Admins as authority. Nobody's last act can be to lock everybody out: see `LastAdmin`."""

    def __init__(self, *, authority: Authority, clock: Clock) -> None:
        self._authority = authority
        self._clock = clock

    def get(self, name: str) -> AdminRecord:
        """The admin. NotFound: there is none of that name."""
        record = self._authority.admins.get((parse_admin_name(name),))
        if record is None:
            raise NotFound(f"admin {name}: there is no such admin")
        return record

    async def create(
        self,
        name: str,
        *,
        roles: Sequence[str],
        expires_at: datetime | None,
        actor: str,
        once: Once = nothing_beside,
    ) -> Minted:
        """Make an admin with a fresh credential. Exists; TooMany: 1000; BadRequest: a name, role or expiry."""
        now = self._clock.now()
        credential = mint_credential()
        record = AdminRecord(
            name=parse_admin_name(name),
            roles=parse_roles(roles),
            credential_sha256=_hash(credential),
            disabled=False,
            created_by=actor,
            created_at=now,
            expires_at=parse_expiry(expires_at, now),
        )

        async def decide() -> Plan[Minted]:
            if record.key in self._authority.admins:
                raise Exists(f"admin {name} exists already; choose another name, or replace its credential")
            if len(self._authority.admins) >= ADMINS_MAX:
                raise TooMany(f"admins: there are {ADMINS_MAX}, which is the most; remove some first")
            return Plan(
                result=Minted(record=record, credential=credential),
                entries=(self._entry(record, "added", actor),),
                inserts=(record,),
                aside=await once(name),
            )

        return await carry_out(self._authority, decide)

    async def replace_credential(
        self, name: str, *, actor: str, if_match: int | None = None, once: Once = nothing_beside
    ) -> Minted:
        """Give the admin another credential; the one before stops at once. NotFound; PreconditionFailed."""
        credential = mint_credential()

        async def decide() -> Plan[Minted]:
            admin = self.get(name)
            check_revision(f"admin {name}", admin, if_match)
            after = msgspec.structs.replace(admin, rev=admin.rev + 1, credential_sha256=_hash(credential))
            return Plan(
                result=Minted(record=after, credential=credential),
                entries=(self._entry(after, "credential_replaced", actor),),
                updates=(after,),
                aside=await once(name),
            )

        return await carry_out(self._authority, decide)

    async def disable(self, name: str, *, actor: str, if_match: int | None = None) -> AdminRecord:
        """Refuse its credential until it is enabled. LastAdmin: nobody else could administer. NotFound."""
        return await self._set_disabled(name, "disabled", actor, if_match, disabled=True)

    async def enable(self, name: str, *, actor: str, if_match: int | None = None) -> AdminRecord:
        """Accept its credential again. NotFound; PreconditionFailed."""
        return await self._set_disabled(name, "enabled", actor, if_match, disabled=False)

    async def remove(self, name: str, *, actor: str, if_match: int | None = None) -> None:
        """Forget the admin. LastAdmin: nobody else could administer. NotFound; PreconditionFailed."""

        async def decide() -> Plan[None]:
            admin = self.get(name)
            check_revision(f"admin {name}", admin, if_match)
            return Plan(
                result=None,
                entries=(self._entry(admin, "removed", actor),),
                updates=self._keeping_one(admin),
                deletes=(Delete(AdminRecord, admin.key, admin.rev),),
            )

        return await carry_out(self._authority, decide)

    async def _set_disabled(
        self, name: str, change: str, actor: str, if_match: int | None, *, disabled: bool
    ) -> AdminRecord:
        async def decide() -> Plan[AdminRecord]:
            admin = self.get(name)
            check_revision(f"admin {name}", admin, if_match)
            if admin.disabled == disabled:
                return Plan(result=admin, entries=())
            after = msgspec.structs.replace(admin, rev=admin.rev + 1, disabled=disabled)
            kept = self._keeping_one(admin) if disabled else ()
            return Plan(result=after, entries=(self._entry(after, change, actor),), updates=(after, *kept))

        return await carry_out(self._authority, decide)

    def _keeping_one(self, leaving: AdminRecord) -> tuple[AdminRecord, ...]:
        """An update of somebody who stays able to administer. LastAdmin: there is nobody.

        It changes nothing but the revision. Without it, two admins who remove each other at one moment would both
        succeed, as neither commit touches the other's row.
        """
        if not self._can_administer(leaving):
            return ()
        for other in sorted(self._authority.admins, key=lambda admin: admin.name):
            if other.name != leaving.name and self._can_administer(other):
                return (msgspec.structs.replace(other, rev=other.rev + 1),)
        raise LastAdmin(f"admin {leaving.name} is the last one who can administer; make another admin first")

    def _can_administer(self, admin: AdminRecord) -> bool:
        expired = admin.expires_at is not None and admin.expires_at <= self._clock.now()
        return Role.ADMIN in admin.roles and not admin.disabled and not expired

    def _entry(self, admin: AdminRecord, change: str, actor: str) -> AdminChanged:
        return AdminChanged(at=self._clock.now(), actor=actor, admin=admin.name, change=change, roles=admin.roles)


def _hash(credential: Secret) -> bytes:
    digest = credential_sha256(credential.reveal().decode())
    if digest is None:
        raise AssertionError("a minted credential has the form of one")
    return digest
