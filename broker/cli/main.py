"""The entry point of `tokenbroker`: finds the command, and turns whatever goes wrong into one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import ClassVar

import typer

from broker.cli.failures import report
from broker.cli.lazy import LazyGroup


class Commands(LazyGroup):
    """Every command, in the order in which a newcomer meets them."""

    modules: ClassVar[Mapping[str, str]] = {
        "demo": "broker.cli.demo",
        "init": "broker.cli.init",
        "serve": "broker.cli.serve",
        "doctor": "broker.cli.doctor",
        "token": "broker.cli.token",
        "rotation": "broker.cli.rotation",
        "worker": "broker.cli.worker",
        "enrolment": "broker.cli.enrolment",
        "grant": "broker.cli.grant",
        "access": "broker.cli.access",
        "issuer": "broker.cli.issuer",
        "lease": "broker.cli.lease",
        "issued": "broker.cli.issued",
        "session": "broker.cli.session",
        "key": "broker.cli.key",
        "admin": "broker.cli.admin",
        "audit": "broker.cli.audit",
        "backup": "broker.cli.backup",
        "restore": "broker.cli.restore",
        "migrate": "broker.cli.migrate",
        "recovery": "broker.cli.recovery",
    }


app = typer.Typer(
    name="tokenbroker",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Lease short-lived decrypted tokens to registered workers, and know who holds what.",
    epilog="Start with: tokenbroker demo",
)


@app.callback()
def _root() -> None:
    """Make this a group, whatever the number of commands."""


def main() -> None:
    """Run the command that was typed. Exit codes: 0 done, 1 refused or failed, 2 usage, 3 verification failed."""
    try:
        app(prog_name="tokenbroker")
    except Exception as error:  # noqa: BLE001 - the edge: an operator gets a sentence, never a traceback
        sys.exit(report(error))


if __name__ == "__main__":
    main()
