"""Making admins, and never losing the last one."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from broker.admin.credentials import credential_sha256
from broker.admin.errors import Exists, LastAdmin
from broker.audit.entries import AdminChanged
from broker.errors import BadRequest, NotFound

ROOT = "admin:root"


async def create(house, name, roles=("admin",), expires_at=None):
    return await house.services.admins.create(name, roles=roles, expires_at=expires_at, actor=ROOT)


async def test_a_credential_is_shown_once_and_only_its_hash_is_kept(house, tmp_path) -> None:
    """`tba_` and 43 characters; the record holds its SHA-256 and the database not a byte of it."""
    minted = await create(house, "ann")
    text = minted.credential.reveal().decode()
    assert len(text) == 47
    assert house.services.admins.get("ann").credential_sha256 == credential_sha256(text)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name.startswith("broker.db"))
    assert text[4:].encode() not in stored
    assert text not in repr(minted)


async def test_replacing_a_credential_ends_the_one_before(house) -> None:
    """Afterwards the record has another hash, and the log says so."""
    first = await create(house, "ann")
    second = await house.services.admins.replace_credential("ann", actor=ROOT)
    assert first.record.credential_sha256 != house.services.admins.get("ann").credential_sha256
    assert credential_sha256(second.credential.reveal().decode()) == second.record.credential_sha256
    changes = [entry.change for entry in await house.recorded() if isinstance(entry, AdminChanged)]
    assert changes == ["added", "credential_replaced"]


@pytest.mark.parametrize("roles", [(), ("king",), ("admin", "king")])
async def test_unknown_roles_are_refused(house, roles) -> None:
    """At least one role, and only known ones."""
    with pytest.raises(BadRequest):
        await create(house, "ann", roles)


async def test_names_are_taken_once(house) -> None:
    """A second admin of a name is refused."""
    await create(house, "ann")
    with pytest.raises(Exists):
        await create(house, "ann")


@pytest.mark.parametrize("act", ["disable", "remove"])
async def test_the_last_admin_stays(house, act) -> None:
    """Neither disabling nor removing may leave nobody with the role admin who is enabled and not expired."""
    admins = house.services.admins
    await create(house, "ann")
    await create(house, "olli", ("operator",))
    await create(house, "brief", expires_at=house.clock.now() + timedelta(minutes=1))
    await house.clock.advance(60)
    with pytest.raises(LastAdmin):
        await getattr(admins, act)("ann", actor=ROOT)
    await getattr(admins, act)("olli", actor=ROOT)
    await create(house, "ben")
    await getattr(admins, act)("ann", actor=ROOT)


@pytest.mark.parametrize("act", ["disable", "remove"])
async def test_two_admins_who_end_each_other_at_once_leave_one(house, act) -> None:
    """The race that compare-and-set on single rows would lose: one of the two requests is refused."""
    admins = house.services.admins
    await create(house, "ann")
    await create(house, "ben")
    outcomes = await asyncio.gather(
        getattr(admins, act)("ann", actor="admin:ben"),
        getattr(admins, act)("ben", actor="admin:ann"),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, LastAdmin) for outcome in outcomes) == 1
    left = [admin.name for admin in house.broker.authority.admins if not admin.disabled]
    assert len(left) == 1


async def test_an_admin_who_is_not_there_is_not_found(house) -> None:
    """Unknown names are NotFound."""
    with pytest.raises(NotFound):
        await house.services.admins.disable("nobody", actor=ROOT)
