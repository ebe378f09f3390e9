"""A service whose keys live in a folder, and the program that rotates them there, for the rotator `command`.

The program says where it is and waits there for as long as it is held, so that a test can kill the broker at that
moment; then it goes on, as programs do whose broker has died.
"""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = """\
#!/bin/sh
trap '' PIPE
crm='{folder}'
step=$1
document=$(cat)
field() {{ printf %s "$document" | sed -n "s/.*\\"$1\\":\\({{\\"value\\":\\)\\{{0,1\\}}\\"\\([^\\"]*\\)\\".*/\\2/p"; }}
id=$(field rotation)
new=$(field new)
current=$(field current)
echo "begin $step" >> "$crm/calls"
while [ -e "$crm/hold-$step" ]; do sleep 0.02; done
fault=$(cat "$crm/fault-$step" 2>/dev/null)
[ -z "$fault" ] || {{ echo "$fault $new $current" >&2; echo "$fault $new $current"; exit 1; }}
case $step in
    create)
        rm -f "$crm/keys/made-$id-"*
        made="made-$id-$$"
        : > "$crm/keys/$made"
        printf '{{"value":"%s","notes":{{"made_by":"crm"}}}}' "$made" ;;
    set) [ -e "$crm/keys/$new" ] || exit 77 ;;
    test) [ -e "$crm/keys/$new" ] || exit 77 ;;
    finish) [ -z "$current" ] || rm -f "$crm/keys/$current" ;;
    abandon) rm -f "$crm/keys/made-$id-"* ;;
esac
echo "end $step" >> "$crm/calls"
"""


class Crm:
    """The service. keys: what it accepts. calls: what was asked of it so far, as `begin STEP` and `end STEP`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "keys").mkdir(parents=True)
        self.program = folder / "rotate-crm-key"
        self.program.write_text(PROGRAM.format(folder=folder))
        self.program.chmod(0o700)

    @property
    def keys(self) -> set[str]:
        return {path.name for path in (self._folder / "keys").iterdir()}

    @property
    def calls(self) -> list[str]:
        path = self._folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def idle(self) -> bool:
        """Whether every program that began has ended, also one whose broker is dead."""
        calls = self.calls
        return sum(call.startswith("begin") for call in calls) == sum(call.startswith("end") for call in calls)

    def accept(self, key: str) -> None:
        (self._folder / "keys" / key).touch()

    def hold(self, step: str) -> None:
        (self._folder / f"hold-{step}").touch()

    def let_go(self, step: str) -> None:
        (self._folder / f"hold-{step}").unlink()

    def fail(self, step: str, saying: str) -> None:
        """From now on the step fails, and its program says this with all that it knows on both of its outputs."""
        (self._folder / f"fault-{step}").write_text(saying)

    def mend(self, step: str) -> None:
        (self._folder / f"fault-{step}").unlink()


class Operator:
    """Asks one broker after the other over HTTP: whoever serves at `url`."""

    def __init__(self, profile: Path, http: aiohttp.ClientSession) -> None:
        self._credential = tomllib.loads(profile.read_text())["credential"]
        self._http = http
        self.url = ""

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self._credential}"}
        async with (
            asyncio.timeout(20),
            self._http.request(method, self.url + path, json=body, headers=headers) as answer,
        ):
            told = await answer.json() if answer.status != 204 else None
            assert answer.status < 300, told
            return told

    async def state(self, token: str) -> Any:
        return (await self.ask("GET", f"/v1/rotations/{token}"))["state"]

    async def stages(self, token: str) -> dict[int, str]:
        listed = await self.ask("GET", f"/v1/tokens/{token}/-/versions")
        return {version["version"]: version["stage"] for version in listed["items"]}

    async def value(self, token: str) -> str:
        return str((await self.ask("POST", f"/v1/tokens/{token}/-/reveal", {}))["value"])
