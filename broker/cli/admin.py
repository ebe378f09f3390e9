"""`tokenbroker admin`: operators. A fresh credential goes into a profile file, never onto the screen."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from broker.admin.roles import Role
from broker.api.views.admins import Admin, CreateAdmin, MintedAdmin
from broker.cli.failures import CommandFailed
from broker.cli.operating import Operator, group, operated
from broker.cli.options import read_instant
from broker.cli.output import Column, shown
from broker.policy.names import parse_admin_name
from broker.private_files import create
from broker.profile import render_profile
from broker.secret import Secret

app = group("Let operators in, each with roles of its own.")

Name = Annotated[str, typer.Argument(metavar="NAME")]
Out = Annotated[
    Path, typer.Option("--out", metavar="F", help="The profile file to write (mode 600); it must not exist.")
]


@operated(app, "list", "tokenbroker admin list")
async def list_admins(operator: Operator) -> None:
    """List the admins."""
    admins = await operator.client.every("/v1/admins", Admin)
    operator.out.listing(
        admins,
        admins,
        Column("admin", lambda admin: admin.admin),
        Column("roles", lambda admin: admin.roles),
        Column("disabled", lambda admin: admin.disabled),
        Column("expires", lambda admin: admin.expires_at),
        Column("by", lambda admin: admin.created_by),
        nothing="no admins",
    )


@operated(app, "add", "tokenbroker admin add ada --role operator --out ada.toml")
async def add(
    operator: Operator,
    name: Name,
    role: Annotated[list[Role], typer.Option(help="May be given several times.")],
    out: Out,
    expires: Annotated[datetime | None, typer.Option(parser=read_instant, metavar="TIME")] = None,
) -> None:
    """Make an admin and write the profile with the credential, which is shown nowhere else."""
    _refuse_existing(out)
    body = CreateAdmin(admin=name, roles=role, expires_at=expires)
    _keep(operator, await operator.client.create("/v1/admins", MintedAdmin, body), out)


@operated(app, "replace-credential", "tokenbroker admin replace-credential ada --out ada.new.toml")
async def replace_credential(operator: Operator, name: Name, out: Out) -> None:
    """Give an admin another credential; the one before stops at once."""
    _refuse_existing(out)
    _keep(operator, await operator.client.create(f"{_path(name)}/credential", MintedAdmin, None), out)


@operated(app, "disable", "tokenbroker admin disable ada")
async def disable(operator: Operator, name: Name) -> None:
    """Refuse an admin's credential until it is enabled."""
    await _switched(operator, name, "disable")


@operated(app, "enable", "tokenbroker admin enable ada")
async def enable(operator: Operator, name: Name) -> None:
    """Accept an admin's credential again."""
    await _switched(operator, name, "enable")


@operated(app, "remove", "tokenbroker admin remove ada")
async def remove(operator: Operator, name: Name) -> None:
    """Forget an admin."""
    await operator.client.delete(_path(name))
    operator.out.fact({"admin": name, "removed": True}, f"{name} is removed")


def _path(name: str) -> str:
    return f"/v1/admins/{parse_admin_name(name)}"


def _refuse_existing(out: Path) -> None:
    """Look before the credential is made: one that cannot be written down would be lost."""
    if out.exists():
        raise CommandFailed(f"{out} exists; name another file for the profile")
    if not out.absolute().parent.is_dir():
        raise CommandFailed(f"there is no folder {out.absolute().parent} for the profile")


def _keep(operator: Operator, minted: MintedAdmin, out: Path) -> None:
    create(out, render_profile(url=operator.client.url, credential=Secret(minted.credential.encode())))
    document = {"admin": minted.admin, "roles": minted.roles, "expires_at": minted.expires_at, "profile": str(out)}
    operator.out.fact(document, f"{minted.admin} ({shown(minted.roles)}): the credential is in {out}")


async def _switched(operator: Operator, name: str, verb: str) -> None:
    admin = await operator.client.post(f"{_path(name)}/{verb}", Admin)
    operator.out.fact(admin, f"{admin.admin} is {'disabled' if admin.disabled else 'enabled'}")
