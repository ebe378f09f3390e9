"""Each step is one run of the operator's program: which one, with which settings, and what its exit code means.

Which programs may run at all says the configuration (`rotation.commands`), not the policy: whoever can change a policy
must not get to run programs on the broker's machine. For the same reason no policy sets a variable of the environment:
by PATH, LD_PRELOAD or BASH_ENV a harmless program runs any other.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from broker.secret import Secret
from broker.upstream.command.process import STDOUT_MAX, Ended, run_program
from broker.upstream.document import read_made, told
from broker.upstream.errors import BadSettings, Failed, Refused, Unreachable, UpstreamError
from broker.upstream.port import Made, Rotation, Site

ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""The whole environment of a program."""

_MEANT: Final[Mapping[int, type[UpstreamError]]] = {
    os.EX_TEMPFAIL: Unreachable,
    os.EX_NOPERM: Refused,
    os.EX_CONFIG: BadSettings,
}
"""The exit codes of sysexits.h that tell more than that it failed: 75, 77 and 78."""


class CommandRotator:
    """Runs the program that the policy names in the setting `program`, if the configuration allows it."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def check(self, settings: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        """Refuse a program that is not allowed."""
        self._program(settings)

    async def create(self, rotation: Rotation, current: Secret | None) -> Made:
        """Run it with `create`; what it writes is the new value."""
        speaker = f"the program {self._program(rotation.settings)}"
        return read_made(speaker, await self._run("create", rotation, None, current))

    async def set(self, rotation: Rotation, new: Secret, current: Secret | None) -> None:
        """Run it with `set`."""
        await self._silent("set", rotation, new, current)

    async def test(self, rotation: Rotation, new: Secret) -> None:
        """Run it with `test`."""
        await self._silent("test", rotation, new, None)

    async def finish(self, rotation: Rotation, new: Secret, former: Secret | None) -> None:
        """Run it with `finish`."""
        await self._silent("finish", rotation, new, former)

    async def abandon(self, rotation: Rotation, new: Secret | None) -> None:
        """Run it with `abandon`."""
        await self._silent("abandon", rotation, new, None)

    async def _silent(self, step: str, rotation: Rotation, new: Secret | None, current: Secret | None) -> None:
        if (await self._run(step, rotation, new, current)).strip():
            raise Failed(
                f"the program {self._program(rotation.settings)} wrote to standard output at the step {step}, where it "
                "has nothing to say; let it write to standard error"
            )

    async def _run(self, step: str, rotation: Rotation, new: Secret | None, current: Secret | None) -> bytes:
        program = self._program(rotation.settings)
        _check_owned(program)
        told_settings = {name: text for name, text in rotation.settings.items() if name != "program"}
        try:
            ended = await run_program(
                program,
                step,
                document=told(step, rotation, told_settings, new=new, current=current),
                environment=ENVIRONMENT,
            )
        except OSError as error:
            raise BadSettings(f"the program {program} cannot be run: {error.strerror or 'refused'}") from None
        return _answer(program, step, ended)

    def _program(self, settings: Mapping[str, str]) -> str:
        """The program, by its whole path. BadSettings: none is named, or the configuration does not allow it."""
        program = settings.get("program", "")
        if not program.startswith("/"):
            raise BadSettings("program: name the program by its whole path, such as /usr/local/bin/rotate-crm-key")
        if program not in self._site.commands:
            raise BadSettings(
                f"program: {program[:200]!r} is not among rotation.commands of the broker's configuration, and only "
                "those are run; whoever operates the broker adds it there"
            )
        return program


def _check_owned(program: str) -> None:
    """Return if not everybody on this machine can write the program, or it is not there. BadSettings."""
    with suppress(OSError):
        if Path(program).stat().st_mode & stat.S_IWOTH:
            raise BadSettings(f"the program {program} can be written by every user of the machine; chmod o-w it")


def _answer(program: str, step: str, ended: Ended) -> bytes:
    """Its standard output, if all went well."""
    if ended.stdout is None:
        raise Failed(f"the program {program} wrote over {STDOUT_MAX} bytes at the step {step}, and was killed")
    if ended.code == 0:
        return ended.stdout
    how = f"was killed by signal {-ended.code}" if ended.code < 0 else f"ended with exit code {ended.code}"
    raise _MEANT.get(ended.code, Failed)(
        f"the program {program} {how} at the step {step}; the {ended.stderr_bytes} bytes that it wrote to standard "
        "error are not kept, as they may quote a secret: let it write its own log"
    )


@asynccontextmanager
async def open_command(site: Site) -> AsyncIterator[CommandRotator]:
    """The rotator, for what the configuration allows."""
    yield CommandRotator(site)
