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

    package = "broker.cli"
    says: ClassVar[Mapping[str, str]] = {
        "demo": "Show the whole story on a temporary broker of its own, in about 15 seconds; nothing is left behind.",
        "init": "Make keys, database and the first admin; whatever is there already is kept, so it may be run again.",
        "serve": "Serve workers and operators until SIGTERM or SIGINT, then let everything down in order; "
        "a second one ends it.",
        "doctor": "Check configuration, permissions, storage, KMS, signed rows, audit log, clock and disk; "
        "say what to mend.",
        "token": "Seal tokens and say which version is current.",
        "rotation": "Rotate tokens by themselves, and see how far that is.",
        "worker": "Register workers and their keys.",
        "enrolment": "See which one-time codes are open, and withdraw them.",
        "grant": "Say which workers and groups may lease which tokens.",
        "access": "Review who may lease what.",
        "issuer": "Have values made for each lease, and ended upstream with it.",
        "lease": "See who holds which token, and take it away.",
        "issued": "See what was made for leases, and whether it is gone upstream.",
        "session": "See who is connected.",
        "key": "See, replace and end the keys that seal tokens.",
        "admin": "Let operators in, each with roles of its own.",
        "audit": "Read, export and verify the audit log.",
        "backup": "Copy the whole database while it is in use.",
        "restore": "Verify a backup and put it where storage.url says.",
        "migrate": "Copy a whole cluster into an empty database and verify it, while no broker runs.",
        "recovery": "Make and try the key on paper that opens everything when every KMS key is lost.",
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
