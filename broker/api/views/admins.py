"""Bodies about admins. A credential is in the answer that makes it, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from broker.admin.roles import Role
from broker.api.views.common import Answer, Instant, Name, Request

if TYPE_CHECKING:
    from broker.admin.admins import Minted
    from storage.records import AdminRecord


class AdminPath(msgspec.Struct, frozen=True):
    """An admin in a path."""

    admin: Name


class CreateAdmin(Request, frozen=True, kw_only=True):
    """An operator to be. expires_at: left out or null for never."""

    admin: Name
    roles: Annotated[list[Role], Meta(min_length=1, max_length=4)]
    expires_at: Instant | None = None


class Admin(Answer, frozen=True, kw_only=True):
    """An operator, without anything of the credential."""

    admin: str
    roles: list[str]
    disabled: bool
    created_by: str
    created_at: Instant
    expires_at: Instant | None
    revision: int


class MintedAdmin(Answer, frozen=True, kw_only=True):
    """An operator with the credential just made, shown this once."""

    admin: str
    roles: list[str]
    expires_at: Instant | None
    credential: str

    def __repr__(self) -> str:
        """Keep the credential out of logs."""
        return f"MintedAdmin(admin={self.admin!r}, credential=…)"


def admin_view(record: AdminRecord) -> Admin:
    """An admin as answers show it."""
    return Admin(
        admin=record.name,
        roles=list(record.roles),
        disabled=record.disabled,
        created_by=record.created_by,
        created_at=record.created_at,
        expires_at=record.expires_at,
        revision=record.rev,
    )


def minted_view(minted: Minted) -> MintedAdmin:
    """The credential on its way out. The caller's copy is wiped."""
    credential = minted.credential.reveal().decode()
    minted.credential.wipe()
    record = minted.record
    return MintedAdmin(admin=record.name, roles=list(record.roles), expires_at=record.expires_at, credential=credential)
