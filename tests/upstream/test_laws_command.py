"""The rotator `command` keeps the laws, with a program that keeps what it accepts in a file."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.upstream.catalog import open_rotator
from broker.upstream.conformance import BadTerms, RotatorLaws, RotatorWorld
from broker.upstream.port import Site

PROGRAM = """#!{python} -ISs
import json, os, secrets, sys

step, told = sys.argv[1], json.load(sys.stdin)
state = told["settings"]["state"]
if told["credentials"]["login"]["value"] != open(state + ".login").read():
    sys.exit(os.EX_NOPERM)
accepted = json.load(open(state))
new, current = (told[name] and told[name]["value"] for name in ("new", "current"))
if step in ("create", "abandon"):
    accepted = {{value: maker for value, maker in accepted.items() if maker != told["rotation"]}}
if step == "create":
    made = secrets.token_urlsafe(24)
    accepted[made] = told["rotation"]
elif step == "test" and new not in accepted:
    sys.exit(1)
elif step == "finish":
    accepted.pop(current, None)
with open(f"{{state}}.{{os.getpid()}}", "w") as beside:
    json.dump(accepted, beside)
os.replace(beside.name, state)
if step == "create":
    print(json.dumps({{"value": made}}))
"""


@dataclass(kw_only=True)
class FileWorld(RotatorWorld):
    """What the program accepts, in a file: each value, and who made it."""

    state: Path

    async def works(self, value: Secret) -> bool:
        return value.reveal().decode() in self._accepted()

    async def live(self) -> int:
        return len(self._accepted()) - 1

    def wrong(self, value: Secret) -> Secret:
        return Secret(value.reveal()[::-1])

    def _accepted(self) -> dict[str, str]:
        accepted: dict[str, str] = json.loads(self.state.read_text())
        return accepted


@asynccontextmanager
async def file_world(folder: Path, *, first: bool) -> AsyncIterator[FileWorld]:
    """A world around a fresh file."""
    folder.mkdir()
    program, state = folder / "rotate", folder / "state"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o700)
    current, other, login = (secrets.token_urlsafe(24) for _ in range(3))
    state.write_text(json.dumps({other: "somebody"} if first else {other: "somebody", current: "before"}))
    (folder / "state.login").write_text(login)
    settings = {"program": str(program), "state": str(state)}
    async with open_rotator("command", Site(clock=SystemClock(), commands=frozenset({str(program)}))) as rotator:
        yield FileWorld(
            state=state,
            rotator=rotator,
            settings=settings,
            credentials={"login": Secret(login.encode())},
            wrong_credentials={"login": Secret(b"not-what-the-program-knows")},
            current=None if first else Secret(current.encode()),
            bystander=Secret(other.encode()),
            bad_terms=(
                BadTerms(names="program", settings={}, credentials={}),
                BadTerms(names="rotation.commands", settings={"program": "/bin/sh"}, credentials={}),
            ),
        )


class TestCommand(RotatorLaws):
    """Each step is a process, so that it is cut short at few places."""

    name: ClassVar[str] = "command"
    cuts_max: ClassVar[int] = 4

    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[RotatorWorld]:
        """The program accepts one value."""
        async with file_world(tmp_path / "world", first=False) as world:
            yield world

    @pytest.fixture
    async def first_world(self, tmp_path: Path) -> AsyncIterator[RotatorWorld]:
        """It accepts none yet."""
        async with file_world(tmp_path / "first", first=True) as world:
            yield world
