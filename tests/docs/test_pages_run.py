"""The commands of the pages, run as they stand against a real broker, with the output that the pages show.

A block says in its info string what is done with it: `sh run` is run in one shell for the whole page, `sh run
background` beside it, `python file=NAME` is saved; `text expect` is what the block before printed, `text later` what
the latest background block has printed by then. `…` stands for anything within a line, and alone for any lines.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOWTOS = [
    "first-worker",
    "rotate-a-token",
    "rotate-automatically",
    "roll-out-a-version",
    "rotate-and-retire-keys",
    "revoke-and-prove",
    "audit",
    "enrol-workers",
    "review-access",
    "share-a-pool-of-keys",
]
PORT = "8420"
"""The port that pages name; each run has another one."""
PATIENCE_S = 20.0
BLOCK = re.compile(r"^```(\w+ [^\n]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Pages:
    """Runs pages in one folder. port: where the broker is, or will be. Everything started here ends with `close`."""

    def __init__(self, folder: Path, port: str) -> None:
        self.port = port
        self._folder = folder
        self._background: list[subprocess.Popen[bytes]] = []
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TOKENBROKER_SERVER__LISTEN": f"127.0.0.1:{self.port}",
            "TOKENBROKER_URL": f"http://127.0.0.1:{self.port}",
            "TOKENBROKER_ROTATION__HOSTS": "127.0.0.1",
        }

    def run(self, page: Path, *, data: Path | None = None) -> int:
        """Run every block of the page, in order; how many were run or compared. data: the broker's, if it serves."""
        folder = self._folder / page.stem
        folder.mkdir()
        if data is not None:
            (folder / "data").symlink_to(data)
        blocks = BLOCK.findall(page.read_text(encoding="utf-8").replace(PORT, self.port))
        beside = folder / "nothing runs beside yet"
        with Shell(folder, self.environment) as shell:
            for number, (info, text) in enumerate(blocks):
                match info.split():
                    case ["sh", "run"]:
                        shell.run(text)
                    case ["sh", "run", "background"]:
                        beside = folder / f"background-{number}"
                        self.start(text, folder, beside)
                    case ["python", name] if name.startswith("file="):
                        (folder / name.removeprefix("file=")).write_text(text, encoding="utf-8")
                    case ["text", "expect"]:
                        printed = shell.printed
                        assert fits(text, printed), f"shown:\n{text}\nprinted:\n{printed}"
                    case ["text", "later"]:
                        until(beside, lambda printed, shown=text: fits(shown, printed))
        return len(blocks)

    def start(self, command: str, folder: Path, output: Path) -> None:
        """Start a command and wait for the first line that it prints."""
        with output.open("wb") as out, output.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command.strip()}"], cwd=folder, env=self.environment, stdout=out, stderr=err
            )
        self._background.append(process)
        until(output, lambda printed: "\n" in printed)

    def close(self) -> None:
        """End what runs, the broker last."""
        for process in reversed(self._background):
            process.terminate()
            process.wait(timeout=PATIENCE_S)


class Shell:
    """One bash for a page, so that what a block exports holds for the next. printed: standard output of the last."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._errors = (folder / "errors").open("w+")
        self._bash = subprocess.Popen(
            ["bash", "-o", "pipefail"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.printed = ""

    def __enter__(self) -> Shell:
        return self

    def run(self, block: str) -> None:
        """Run each line; the first that fails fails the test, with what it said."""
        lines: list[str] = []
        for line in block.splitlines():
            self._stdin.write(f'{line}\necho "<done $?>"\n')
            self._stdin.flush()
            lines += self._until_done(line)
        self.printed = "".join(lines)

    def _until_done(self, line: str) -> list[str]:
        lines: list[str] = []
        for printed in self._stdout:
            before, done, code = printed.rpartition("<done ")
            if not done:
                lines.append(printed)
                continue
            if before:
                lines.append(f"{before}\n")
            self._errors.seek(0)
            assert code == "0>\n", f"{line}\nexit code {code}{''.join(lines)}{self._errors.read()[-2000:]}"
            return lines
        raise AssertionError(f"the shell ended at: {line}")

    @property
    def _stdin(self) -> IO[str]:
        assert self._bash.stdin is not None
        return self._bash.stdin

    @property
    def _stdout(self) -> IO[str]:
        assert self._bash.stdout is not None
        return self._bash.stdout

    def __exit__(self, *_: object) -> None:
        self._stdin.close()
        self._bash.wait(timeout=PATIENCE_S)
        self._stdout.close()
        self._errors.close()


def fits(shown: str, printed: str) -> bool:
    """Whether this is what a page shows. Spaces between columns may be more or fewer, and follow a line."""
    wanted = [_expression(line) for line in shown.strip().splitlines()]
    # The places among the printed lines that the shown ones may have got to; `…` alone may get anywhere further on.
    lines = printed.strip().splitlines()
    places = {0}
    for line in wanted:
        if line is None:
            places = set(range(min(places, default=len(lines) + 1), len(lines) + 1))
        else:
            places = {place + 1 for place in places if place < len(lines) and line.fullmatch(lines[place])}
    return len(lines) in places


def _expression(line: str) -> re.Pattern[str] | None:
    if line.strip() == "…":
        return None
    parts = (r" +".join(map(re.escape, re.split(r" +", part))) for part in line.rstrip().split("…"))
    return re.compile(r".*".join(parts) + r" *")


def until(output: Path, enough: Callable[[str], bool]) -> None:
    """Wait until a process has printed enough; fail with all that it said."""
    deadline = time.monotonic() + PATIENCE_S
    while not enough(output.read_text()):
        said = output.read_text() + output.with_suffix(".err").read_text()
        assert time.monotonic() < deadline, f"{output.name} printed:\n{said[-2000:]}"
        time.sleep(0.02)


@dataclass(frozen=True, kw_only=True)
class Broker:
    """A broker that serves what `init` made in the folder `data`."""

    port: str
    data: Path


def free_port() -> str:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One for all pages that begin where the README ends: their names are their own."""
    folder = tmp_path_factory.mktemp("broker")
    pages = Pages(folder, free_port())
    with Shell(folder, pages.environment) as shell:
        shell.run("tokenbroker init --data-dir ./data")
    with closing(pages):
        pages.start("tokenbroker serve --data-dir ./data", folder, folder / "serve")
        yield Broker(port=pages.port, data=folder / "data")


@pytest.fixture
def pages(broker: Broker, tmp_path: Path) -> Iterator[Pages]:
    """Pages whose broker serves already."""
    with closing(Pages(tmp_path, broker.port)) as pages:
        pages.environment["TOKENBROKER_DATA_DIR"] = "./data"
        yield pages


def test_the_quickstart_works_as_it_stands(tmp_path: Path) -> None:
    """Whoever follows the README literally has a broker, a lease, a rotation, a revocation and a verified log."""
    with closing(Pages(tmp_path, free_port())) as pages:
        assert pages.run(ROOT / "README.md") >= 10


@pytest.mark.parametrize("page", HOWTOS)
def test_a_howto_works_as_it_stands(page: str, pages: Pages, broker: Broker) -> None:
    """Whoever follows a page literally sees what it shows."""
    assert pages.run(ROOT / "docs" / "howto" / f"{page}.md", data=broker.data) > 1


def test_the_page_about_databases_works_as_it_stands(
    pages: Pages, broker: Broker, tmp_path: Path, postgres_of_its_own: Any
) -> None:
    """Its logins are made on a real server, work, and are gone when their leases are."""
    server = postgres_of_its_own
    server.sql("postgres", "CREATE DATABASE app")
    page = tmp_path / "issue-database-users.md"
    written = (ROOT / "docs" / "howto" / page.name).read_text(encoding="utf-8")
    page.write_text(written.replace("5432", str(server.port)), encoding="utf-8")
    pages.environment["ADMIN"] = server.url("app")
    assert pages.run(page, data=broker.data) > 8
