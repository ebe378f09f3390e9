"""`tokenbroker recovery`: make the key for the worst day, and try its paper before that day. Offline.

The private half is shown once and written nowhere; it is read from standard input, a file or the environment.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from broker.cli.core_dumps import forbid_core_dumps
from broker.cli.failures import VERIFICATION_FAILED, CommandFailed
from broker.cli.operating import example, group
from broker.cli.options import Config, DataDir, Json
from broker.cli.output import Output, note
from broker.doctor.paper import Opened, open_with_paper
from broker.exclusive import database_file
from broker.foundations import named_keys
from broker.settings import Settings, load_settings
from broker.setup.layout import layout_of
from kms.recovery import RecoveryKms
from kms.recovery.adapter import SCHEME, recovery_uri
from kms.recovery.text import PAPER_BYTES_MAX, paper_text, read_paper
from storage.catalog import open_storage
from storage.port import Storage
from storage.sqlite import restore_sqlite

_GROUPS_A_LINE = 5

app = group("Make and try the key on paper that opens everything when every KMS key is lost.")


@app.command("keygen", epilog=example("tokenbroker recovery keygen"))
def keygen(
    print_it: Annotated[
        bool, typer.Option("--print", help="Show the private half although standard output is no terminal.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a recovery key: the public half for the configuration, and the private half, once, for paper.

    The private half opens every token of the clusters that name the public one. It is stored nowhere: write it down
    twice, try it with `recovery check`, and keep it where neither the broker nor its backups are.
    """
    if not sys.stdout.isatty() and not print_it:
        raise CommandFailed(
            "standard output is no terminal, and the private half must not land in a log: run it on a terminal, or say "
            "--print if you know where it goes"
        )
    forbid_core_dumps()
    private_key = X25519PrivateKey.generate()
    uri, paper = recovery_uri(private_key.public_key()), paper_text(private_key.private_bytes_raw())
    words = paper.split()
    lines = [words[at : at + _GROUPS_A_LINE] for at in range(0, len(words), _GROUPS_A_LINE)]
    Output(json=as_json).fact(
        {"uri": uri, "private_half": paper},
        f"for kms.keys and keyrings.*.kms_keys: {uri}",
        "for paper, shown this once:",
        *(f"    {' '.join(line)}" for line in lines),
    )
    note("Write it down, by hand, twice; then type it into: tokenbroker recovery check")


@app.command(
    "check",
    epilog=example("tokenbroker recovery check --config /etc/tokenbroker/broker.toml --backup tokenbroker.backup"),
)
def check(
    *,
    uri: Annotated[str | None, typer.Argument(metavar="URI", help="The public half it should belong to.")] = None,
    config: Config = None,
    data_dir: DataDir = None,
    backup: Annotated[
        Path | None, typer.Option("--backup", metavar="F", help="Open the keys of this backup, not of storage.url.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", metavar="F", help="Read the private half from F.")] = None,
    variable: Annotated[
        str | None, typer.Option("--env", metavar="VAR", help="Read the private half from this environment variable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which recovery key a private half belongs to, and what it opens; nothing is changed.

    With a URI, or a configuration, it must be that one's. With a configuration or a backup it opens the root key and
    every data key, on a copy, and says what does not open. Exit code 3: something is not as it should be.
    """
    if config is not None and data_dir is not None:
        raise typer.BadParameter("name a configuration (--config F) or the folder that `init` filled (--data-dir D)")
    if file is not None and variable is not None:
        raise typer.BadParameter("the private half comes from one place: --file, --env or standard input")
    forbid_core_dumps()
    settings = None
    if config is not None or data_dir is not None:
        settings = load_settings(layout_of(data_dir=data_dir, config=config).config)
    private_key = X25519PrivateKey.from_private_bytes(read_paper(_typed(file, variable)))
    public_key = private_key.public_key()
    named = recovery_uri(public_key)
    problems = _strangers(named, uri, settings)
    opened = None
    if settings is not None or backup is not None:
        kms = RecoveryKms(uri=named, public_key=public_key, private_key=private_key)
        opened = asyncio.run(_open(kms, settings, backup))
        problems += opened.problems
    document = {
        "ok": not problems,
        "recovery_key": named,
        "cluster_id": opened.cluster_id if opened else None,
        "data_keys": opened.data_keys if opened else None,
        "problems": problems,
    }
    told = [f"this is the private half of {named}"]
    if opened is not None and opened.cluster_id:
        told.append(f"it opens the root key of {opened.cluster_id}, and {opened.data_keys} data keys")
    Output(json=as_json).fact(document, *told, *(f"problem: {problem}" for problem in problems))
    if problems:
        raise typer.Exit(VERIFICATION_FAILED)


def _strangers(named: str, uri: str | None, settings: Settings | None) -> list[str]:
    """What was expected to be this recovery key, and is another."""
    problems = []
    if uri is not None and uri.partition("?")[0] != named:
        problems.append(f"it does not belong to {uri}")
    if settings is not None:
        configured = [each.partition("?")[0] for each in named_keys(settings) if each.startswith(f"{SCHEME}:")]
        if named not in configured:
            problems.append(f"the configuration names {', '.join(configured) or 'no recovery key'}")
    return problems


async def _open(kms: RecoveryKms, settings: Settings | None, backup: Path | None) -> Opened:
    async with _reading(settings, backup) as storage:
        return await open_with_paper(storage, kms, cluster_id="" if settings is None else settings.cluster.id)


@asynccontextmanager
async def _reading(settings: Settings | None, backup: Path | None) -> AsyncIterator[Storage]:
    """A copy of the backup, or of the database; a database that is no file is read where it is."""
    source = backup
    if source is None and settings is not None:
        source = database_file(settings.storage.url)
    if source is None:
        assert settings is not None, "without a backup there is a configuration"
        async with open_storage(settings.storage.url) as storage:
            yield storage
        return
    if not source.is_file():
        raise CommandFailed(f"there is no database or backup {source}")
    with tempfile.TemporaryDirectory(prefix="tokenbroker-") as folder:
        copy = Path(folder) / "copy.db"
        restore_sqlite(source, copy)
        async with open_storage(f"sqlite:///{copy}") as storage:
            yield storage


def _typed(file: Path | None, variable: str | None) -> str:
    """The private half as it was written down. CommandFailed: the variable is not set. OSError: the file."""
    if file is not None:
        with file.open("rb") as stream:
            return stream.read(PAPER_BYTES_MAX).decode(errors="replace")
    if variable is not None:
        if variable not in os.environ:
            raise CommandFailed(f"the environment variable {variable} is not set")
        return os.environ[variable]
    if sys.stdin.isatty():
        return getpass.getpass("Private half, in one line (not shown): ", stream=sys.stderr)
    return sys.stdin.buffer.read(PAPER_BYTES_MAX).decode(errors="replace")
