"""The operator's command as operators run it: real processes, and one real broker that most tests share."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broker.clock import SystemClock
from broker.setup.initialising import Initialised, initialise
from broker.setup.layout import layout_of

COMMAND = [sys.executable, "-m", "broker.cli.main"]
START_S = 60.0


def plain_environment() -> dict[str, str]:
    """The environment without a developer's own broker, and with a home that holds no profile."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOKENBROKER_", "XDG_"))}
    return {**kept, "PYTHONSAFEPATH": "1", "HOME": os.devnull}


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str
    raw: bytes

    @property
    def document(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one line that says why it failed; fails the test when there is a traceback or no such line."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.startswith("tokenbroker: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("tokenbroker: ")


class Forks:
    """The process that runs commands in forks of itself (`forking`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = threading.Lock()
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("forking.py")), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=plain_environment(),
            )
        self._orders = self._ours.makefile("rw")

    def run(self, arguments: list[str], environment: Mapping[str, str], stdin: bytes) -> Ran:
        """Run one command; others wait meanwhile."""
        with self._turn:
            streams = {name: self._folder / name for name in ("stdin", "stdout", "stderr")}
            for name, path in streams.items():
                path.write_bytes(stdin if name == "stdin" else b"")
            order = {"arguments": arguments, "environment": dict(environment)}
            order.update({name: str(path) for name, path in streams.items()})
            self._orders.write(json.dumps(order) + "\n")
            self._orders.flush()
            code = json.loads(self._orders.readline())
            raw, err = streams["stdout"].read_bytes(), streams["stderr"].read_bytes()
        return Ran(code=code, out=raw.decode(errors="replace"), err=err.decode(errors="replace"), raw=raw)

    def close(self) -> None:
        """End it."""
        self._orders.close()
        self._ours.close()
        self._process.wait(timeout=START_S)


@dataclass(frozen=True, kw_only=True)
class Shell:
    """Runs commands in one environment."""

    environment: Mapping[str, str]
    forks: Forks

    def run(self, *arguments: object, stdin: bytes = b"") -> Ran:
        """Run `tokenbroker ARGUMENTS` to its end, whatever that is."""
        return self.forks.run([str(argument) for argument in arguments], self.environment, stdin)

    def run_afresh(self, *arguments: object, stdin: bytes = b"", **more: Any) -> Ran:
        """The same in an interpreter of its own, as a shell would start it."""
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            timeout=START_S,
            env={**self.environment},
            check=False,
            **more,
        )
        out = done.stdout.decode(errors="replace")
        return Ran(code=done.returncode, out=out, err=done.stderr.decode(errors="replace"), raw=done.stdout)

    def ok(self, *arguments: object, stdin: bytes = b"") -> Ran:
        """Run it; it must succeed."""
        ran = self.run(*arguments, stdin=stdin)
        assert ran.code == 0, ran.err
        return ran

    def json(self, *arguments: object, stdin: bytes = b"") -> Any:
        """Run it with --json; it must succeed. The document."""
        return self.ok(*arguments, "--json", stdin=stdin).document

    def refused(self, *arguments: object, stdin: bytes = b"", code: int = 1) -> str:
        """Run it; it must fail with this exit code and one line, and print nothing. The line."""
        ran = self.run(*arguments, stdin=stdin)
        assert (ran.code, ran.out) == (code, ""), (ran.code, ran.out, ran.err)
        return ran.complaint

    def with_environment(self, **more: str) -> Shell:
        """The same with further variables."""
        return Shell(environment={**self.environment, **more}, forks=self.forks)


@dataclass(frozen=True, kw_only=True)
class House:
    """An initialised folder, the broker that serves it, and a shell that reaches it."""

    folder: Path
    url: str
    shell: Shell
    process: subprocess.Popen[str]


@contextmanager
def served(forks: Forks, folder: Path, *options: str) -> Iterator[House]:
    """A broker that serves `folder` on a free port until the context ends."""
    with ExitStack() as stack:
        log = stack.enter_context((folder.parent / f"{folder.name}.log").open("wb"))
        process = subprocess.Popen(
            [*COMMAND, "serve", "--data-dir", str(folder), "--listen", "127.0.0.1:0", *options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=plain_environment(),
        )
        stack.callback(_end, process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), line
        url = line.split()[-1]
        reach = {"TOKENBROKER_PROFILE": str(folder / "profile.toml"), "TOKENBROKER_URL": url}
        shell = Shell(environment={**plain_environment(), **reach}, forks=forks)
        yield House(folder=folder, url=url, shell=shell, process=process)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=START_S)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Where commands run."""
    running = Forks(tmp_path_factory.mktemp("streams"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def shell(forks: Forks) -> Shell:
    """A shell that knows no broker."""
    return Shell(environment=plain_environment(), forks=forks)


@pytest.fixture(scope="session")
def serve_in(forks: Forks) -> Callable[..., AbstractContextManager[House]]:
    """Serves a folder that a test has initialised."""
    return partial(served, forks)


@pytest.fixture(scope="session")
def house(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One broker for all tests; each test uses names of its own."""
    folder = tmp_path_factory.mktemp("house") / "data"
    shell.ok("init", "--data-dir", folder)
    with served(shell.forks, folder) as standing:
        yield standing


@pytest.fixture(scope="session")
def initialise_in() -> Callable[[Path], Initialised]:
    """What `init --data-dir` does, without a process of its own."""

    def make(data: Path) -> Initialised:
        layout = layout_of(data_dir=data, config=None)
        steps = initialise(layout, own_config=False, passphrase_file=None, new_credential=False, clock=SystemClock())
        return asyncio.run(steps)

    return make


@pytest.fixture
def folder(initialise_in: Callable[[Path], Initialised], tmp_path: Path) -> Path:
    """A folder of the test's own that was initialised; nobody serves it."""
    initialise_in(tmp_path / "data")
    return tmp_path / "data"
