"""Let the first operator in. The profile is written before the admin, so no crash loses a credential that is valid."""

from __future__ import annotations

from dataclasses import dataclass

from broker.admin.admins import FIRST_ADMIN, AdminAdmin
from broker.admin.credentials import credential_sha256, mint_credential
from broker.admin.roles import Role
from broker.audit.entries import AdminChanged
from broker.authority.authority import Authority
from broker.clock import Clock
from broker.errors import NotFound, StartRefused
from broker.private_files import create, replace
from broker.profile import read_profile, render_profile
from broker.secret import Secret
from broker.setup.layout import Layout
from storage.records import AdminRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Admitted:
    """said: what was done, for the operator. has_profile: whether the profile in the data directory can be used."""

    said: str
    has_profile: bool


async def admit_first(*, authority: Authority, layout: Layout, url: str, clock: Clock) -> Admitted:
    """Make the admin `root` with the credential of the profile, writing the profile if it is not there.

    With admins on record nothing is made. StartRefused: a profile is there that cannot be read. OSError: disk.
    """
    if len(authority.admins):
        return _existing(authority, layout)
    if not layout.profile.exists():
        create(layout.profile, render_profile(url=url, credential=mint_credential()))
    credential = read_profile(layout.profile).credential
    record = AdminRecord(
        name=FIRST_ADMIN,
        roles=(Role.ADMIN.value,),
        credential_sha256=_hash(credential),
        disabled=False,
        created_by="system",
        created_at=clock.now(),
        expires_at=None,
    )
    entry = AdminChanged(at=clock.now(), actor="system", admin=record.name, change="added", roles=record.roles)
    await authority.commit((entry,), inserts=(record,))
    return Admitted(said=f"{FIRST_ADMIN}, with every role", has_profile=True)


async def replace_first(*, authority: Authority, layout: Layout, url: str, clock: Clock) -> Admitted:
    """Give `root` another credential and write the profile anew: for whoever holds the keys and lost the profile."""
    try:
        minted = await AdminAdmin(authority=authority, clock=clock).replace_credential(FIRST_ADMIN, actor="system")
    except NotFound:
        raise StartRefused(f"there is no admin {FIRST_ADMIN} whose credential could be replaced") from None
    replace(layout.profile, render_profile(url=url, credential=minted.credential))
    return Admitted(said=f"{FIRST_ADMIN} has another credential; the one before stopped", has_profile=True)


def _existing(authority: Authority, layout: Layout) -> Admitted:
    if not layout.profile.exists():
        said = "there already, its profile is elsewhere; for another credential: init --new-credential"
        return Admitted(said=said, has_profile=False)
    known = {admin.credential_sha256 for admin in authority.admins}
    if _hash(read_profile(layout.profile).credential) in known:
        return Admitted(said="there already", has_profile=True)
    said = "there already, and the profile's credential was replaced; for another one: init --new-credential"
    return Admitted(said=said, has_profile=True)


def _hash(credential: Secret) -> bytes:
    digest = credential_sha256(credential.reveal().decode())
    assert digest is not None, "profiles and mints give only well-formed credentials"
    return digest
