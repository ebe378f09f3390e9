"""`tokenbroker worker`: who may connect, and with which keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from broker.api.views.workers import AddKey, IssuedEnrolment, IssueEnrolment, RegisterWorker, Worker
from broker.cli.client import segment
from broker.cli.operating import Operator, group, operated
from broker.cli.options import read_instant, read_labels
from broker.cli.output import Column, note, shown
from broker.cli.public_keys import read_public_key
from broker.policy.names import parse_worker_name

app = group("Register workers and their keys.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Such as ci-1.")]
PublicKey = Annotated[
    str, typer.Option("--public-key", metavar="FILE-or-b64", help="As `tokenbroker-worker keygen` printed it.")
]
Groups = Annotated[list[str] | None, typer.Option("--group", metavar="G", help="May be given several times.")]


@operated(app, "register", "tokenbroker worker register ci-1 --public-key ci-1.pub --group ci")
async def register(
    operator: Operator,
    *,
    name: Name,
    public_key: PublicKey,
    group_: Groups = None,
    label: Annotated[list[str] | None, typer.Option(metavar="K=V")] = None,
    expires: Annotated[
        datetime | None, typer.Option(parser=read_instant, metavar="TIME", help="After this it is refused.")
    ] = None,
    single_session: Annotated[
        bool, typer.Option("--single-session", help="A further connection ends the one before.")
    ] = False,
) -> None:
    """Register a worker with its Ed25519 public key."""
    body = RegisterWorker(
        worker=name,
        public_key=read_public_key(public_key),
        groups=tuple(group_ or ()),
        labels=read_labels(label or []),
        expires_at=expires,
        single_session=single_session,
    )
    worker = await operator.client.create("/v1/workers", Worker, body)
    operator.out.fact(worker, f"{worker.worker} is registered, groups {shown(worker.groups)}")


@operated(app, "enroll", "tokenbroker worker enroll ci-2 --group ci > code")
async def enroll(operator: Operator, name: Name, group_: Groups = None) -> None:
    """Print a one-time code with which the worker registers itself within 15 minutes."""
    issued = await operator.client.create(
        "/v1/enrolments", IssuedEnrolment, IssueEnrolment(worker=name, groups=tuple(group_ or ()))
    )
    operator.out.fact(issued, issued.code)
    if issued.worker_exists:
        groups = f"and gives it the groups {shown(issued.groups)} instead of its own" if issued.replaces_groups else ""
        note(f"{issued.worker} exists already: the code adds a further key to it {groups}".rstrip())
    note(f"For {issued.worker}, once, until {shown(issued.expires_at)}: tokenbroker-worker enroll --code-file F")


@operated(app, "list", "tokenbroker worker list --group ci")
async def list_workers(
    operator: Operator,
    group_: Annotated[str | None, typer.Option("--group", metavar="G", help="Only its members.")] = None,
) -> None:
    """List the registered workers."""
    workers = await operator.client.every("/v1/workers", Worker, {"group": group_})
    operator.out.listing(
        workers,
        workers,
        Column("worker", lambda worker: worker.worker),
        Column("groups", lambda worker: worker.groups),
        Column("keys", lambda worker: len(worker.keys)),
        Column("disabled", lambda worker: worker.disabled),
        Column("expires", lambda worker: worker.expires_at),
        nothing="no workers yet; add one with `tokenbroker worker register` or `worker enroll`",
    )


@operated(app, "show", "tokenbroker worker show ci-1")
async def show(operator: Operator, name: Name) -> None:
    """Show one worker and the SHA-256 of its keys."""
    worker = await operator.client.get(_path(name), Worker)
    facts = {
        "worker": worker.worker,
        "groups": worker.groups,
        "labels": worker.labels,
        "disabled": worker.disabled,
        "single session": worker.single_session,
        "created": worker.created_at,
        "expires": worker.expires_at,
    }
    keys = {f"key {number}": f"{key.public_key}  sha256 {key.key_sha256}" for number, key in enumerate(worker.keys, 1)}
    operator.out.details(worker, {**facts, **keys})


@operated(app, "disable", "tokenbroker worker disable ci-1")
async def disable(operator: Operator, name: Name) -> None:
    """Close a worker's sessions, revoke its leases and refuse it until it is enabled."""
    await _switched(operator, name, "disable")


@operated(app, "enable", "tokenbroker worker enable ci-1")
async def enable(operator: Operator, name: Name) -> None:
    """Let a worker connect again."""
    await _switched(operator, name, "enable")


@operated(app, "remove", "tokenbroker worker remove ci-1")
async def remove(operator: Operator, name: Name) -> None:
    """Forget a worker: its sessions are closed and what they hold is revoked; leases without a session run out."""
    await operator.client.delete(_path(name))
    operator.out.fact({"worker": name, "removed": True}, f"{name} is removed")


@operated(app, "add-key", "tokenbroker worker add-key ci-1 --public-key ci-1.new.pub")
async def add_key(operator: Operator, name: Name, public_key: PublicKey) -> None:
    """Let a further key prove a worker, so that it can change keys without a pause."""
    body = AddKey(public_key=read_public_key(public_key))
    worker = await operator.client.create(f"{_path(name)}/keys", Worker, body)
    operator.out.fact(worker, f"{worker.worker} has {len(worker.keys)} keys")


@operated(app, "remove-key", "tokenbroker worker remove-key ci-1 9f86d081884c7d659a2feaa0c55ad015…")
async def remove_key(
    operator: Operator,
    name: Name,
    key_sha256: Annotated[str, typer.Argument(metavar="SHA256", help="From `worker show`.")],
) -> None:
    """Remove a key of a worker; sessions that it proved are closed."""
    await operator.client.delete(f"{_path(name)}/keys/{segment(key_sha256)}")
    operator.out.fact({"worker": name, "removed": key_sha256}, f"{name} has lost that key")


def _path(name: str) -> str:
    return f"/v1/workers/{parse_worker_name(name)}"


async def _switched(operator: Operator, name: str, verb: str) -> None:
    worker = await operator.client.post(f"{_path(name)}/{verb}", Worker)
    operator.out.fact(worker, f"{worker.worker} is {'disabled' if worker.disabled else 'enabled'}")
