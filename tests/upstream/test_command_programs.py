"""The rotator `command`: what its program is given, what may come back, and that nothing of it outlives the call."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from broker.clock import SystemClock
from broker.secret import Secret
from broker.upstream.command.rotator import ENVIRONMENT, CommandRotator
from broker.upstream.errors import BadSettings, Failed, Refused, Unreachable, UpstreamError
from broker.upstream.port import Rotation, Site

Write = Callable[[str], Path]
VECTOR: dict[str, str] = json.loads((Path(__file__).parents[1] / "vectors" / "rotator_command.json").read_text())


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a program for sh."""

    def written(body: str) -> Path:
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o700)
        return program

    return written


def rotator(*programs: Path) -> CommandRotator:
    return CommandRotator(Site(clock=SystemClock(), commands=frozenset(map(str, programs))))


def rotation(program: Path, **settings: str) -> Rotation:
    return Rotation(
        token="crm/key",
        settings={"program": str(program), **settings},
        credentials={"admin": Secret(b"p\xffss")},
        id="r1",
        notes={"key": "k1"},
    )


async def test_a_program_gets_one_document_and_its_step(write: Write, tmp_path: Path) -> None:
    """The step is its argument; values and credentials come on standard input alone, binary ones as Base64."""
    program = write(f'cat > "{tmp_path}/standard input"; printf %s "$*" > {tmp_path}/arguments')
    await rotator(program).set(rotation(program, region="eu"), Secret(b"new"), None)
    assert {name: (tmp_path / name).read_text() for name in VECTOR} == VECTOR


async def test_nobody_sets_its_environment(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the broker's environment or folder reaches it, and no policy adds what would run another program."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the broker's own")
    program = write(f"pwd > {tmp_path}/folder; exec env > {tmp_path}/environment")
    await rotator(program).test(rotation(program, **{"env.BASH_ENV": "$(id)", "PATH": str(tmp_path)}), Secret(b"new"))
    seen = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines())
    assert {name: text for name, text in seen.items() if name not in {"PWD", "_", "SHLVL", "OLDPWD"}} == {
        "PATH": ENVIRONMENT["PATH"]
    }
    assert (tmp_path / "folder").read_text() == "/\n"


async def test_it_inherits_no_descriptor(write: Write, tmp_path: Path) -> None:
    """A file that the broker has open, even one that it would pass on, is not open in the program."""
    secret = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(secret, True)
    program = write(f'for each in /proc/self/fd/*; do readlink "$each"; done > {tmp_path}/open; true')
    try:
        await rotator(program).test(rotation(program), Secret(b"new"))
    finally:
        os.close(secret)
    assert str(tmp_path) not in (tmp_path / "open").read_text().splitlines()


async def test_what_it_makes_is_read_strictly(write: Write) -> None:
    """A value with its notes, credentials and end, as the specification has them."""
    answer = {
        "value_b64": "AP8",
        "content_type": "application/octet-stream",
        "notes": {"key": "k2"},
        "credentials": {"admin": {"value": "next"}},
        "expires_at": "2027-01-01T01:00:00+01:00",
    }
    program = write(f"cat > /dev/null; echo '{json.dumps(answer)}'")
    made = await rotator(program).create(rotation(program), None)
    assert (made.value.reveal(), made.content_type, dict(made.notes)) == (
        b"\x00\xff",
        "application/octet-stream",
        {"key": "k2"},
    )
    assert made.credentials["admin"].reveal() == b"next"
    assert made.expires_at is not None
    assert made.expires_at.isoformat() == "2027-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    "output",
    [
        "",
        "canary",
        '"canary"',
        '{"value":"canary","value_b64":"AA"}',
        '{"notes":{}}',
        '{"value":"canary","canary":1}',
        '{"value":"canary"} {"value":"canary"}',
        '{"value_b64":"canary!"}',
        '{"value":"canary","expires_at":"soon canary"}',
        '{"value":"canary","expires_at":"2027-01-01T00:00:00"}',
        '{"value":"canary","notes":[1]}',
    ],
)
async def test_garbage_is_failed_and_not_quoted(write: Write, output: str) -> None:
    """What is no answer is told by what an answer is, without a word of it."""
    program = write(f"cat > /dev/null; printf %s '{output}'")
    with pytest.raises(Failed) as refused:
        await rotator(program).create(rotation(program), None)
    assert "canary" not in refused.value.message
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("exit 75", Unreachable),
        ("exit 77", Refused),
        ("exit 78", BadSettings),
        ("exit 1", Failed),
        ("kill -9 $$", Failed),
    ],
)
async def test_exit_codes_mean_what_sysexits_says(write: Write, body: str, kind: type[UpstreamError]) -> None:
    """Trying later, refused, and wrong settings are told apart; what it wrote is counted, never quoted."""
    program = write(f"cat; cat >&2; echo canary >&2; {body}")
    with pytest.raises(kind) as refused:
        await rotator(program).set(rotation(program), Secret(b"canary"), None)
    assert type(refused.value) is kind
    assert "canary" not in refused.value.message


async def test_a_program_that_talks_where_it_should_not_has_failed(write: Write) -> None:
    """Only `create` answers: output at another step is a program that misunderstands its step."""
    program = write("cat > /dev/null; echo done")
    with pytest.raises(Failed, match="standard output"):
        await rotator(program).finish(rotation(program), Secret(b"new"), None)


async def test_endless_output_is_cut_off(write: Write) -> None:
    """A program that never stops writing is killed at the bound, however much it has to say on either output."""
    program = write("cat > /dev/null; yes >&2 & exec yes")
    with pytest.raises(Failed, match="was killed"):
        await rotator(program).create(rotation(program), None)


async def test_a_large_value_reaches_a_program_that_does_not_read(write: Write) -> None:
    """Whoever ignores what it is given is not waited for."""
    program = write("exit 0")
    await rotator(program).set(rotation(program), Secret(b"x" * 65_536), None)


def test_hasty_programs_under_the_loop_that_serves(write: Write) -> None:
    """Under uvloop too, a program that ends before it is fed has said what it said: its answer, and its exit code."""
    program = write("""echo '{"value":"made"}'; [ "$1" = create ] || exit 77""")

    async def ask() -> None:
        for _ in range(40):
            assert (await rotator(program).create(rotation(program), None)).value.reveal() == b"made"
            with pytest.raises(Refused):
                await rotator(program).set(rotation(program), Secret(b"new"), None)

    uvloop.run(ask())


async def test_a_cancelled_call_leaves_no_process(write: Write, tmp_path: Path) -> None:
    """At the deadline the program and what it started are killed before the caller goes on."""
    program = write(f"sleep 600 & echo $! > {tmp_path}/child.part; mv {tmp_path}/child.part {tmp_path}/child; wait")
    call = rotator(program).test(rotation(program), Secret(b"new"))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(call)
        await until((tmp_path / "child").exists)
        task.cancel()
    child = int((tmp_path / "child").read_text())
    await until(lambda: _is_gone(child))


@pytest.mark.parametrize("turns", [1, 2, 3, 4, 5])
async def test_a_call_that_is_cancelled_while_it_starts_leaves_no_process(
    write: Write, tmp_path: Path, turns: int
) -> None:
    """Whatever the program has started by then is killed with it, and nobody waits for that to end by itself."""
    program = write(f"sleep 600 & echo $! > {tmp_path}/child.part; mv {tmp_path}/child.part {tmp_path}/child; wait")
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(rotator(program).test(rotation(program), Secret(b"new")))
        for _ in range(turns):
            await asyncio.sleep(0)
        # The loop stands still while the program gets on, as it does when the machine is busy.
        until_s = time.monotonic() + 0.5
        while not (tmp_path / "child").exists() and time.monotonic() < until_s:
            pass
        task.cancel()
    if (tmp_path / "child").exists():
        child = int((tmp_path / "child").read_text())
        await until(lambda: _is_gone(child))


async def until(condition: Callable[[], bool]) -> None:
    """Return as soon as it holds."""
    async with asyncio.timeout(20):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


def _is_gone(process: int) -> bool:
    """Whether it has ended; a zombie that nobody has looked at has."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"program": "rotate"},
        {"program": "/bin/sh"},
        {"program": "/usr/bin/../bin/env"},
    ],
)
def test_what_is_not_allowed_is_refused_at_once(write: Write, settings: dict[str, Any]) -> None:
    """A policy can name none but the programs of the configuration, by exactly their path there."""
    allowed = write("exit 0")
    given = {name: text.format(allowed=allowed) for name, text in settings.items()}
    with pytest.raises(BadSettings):
        rotator(allowed).check(given, {})


async def test_a_program_that_is_allowed_no_more_is_not_run(write: Write) -> None:
    """The configuration is asked at each step, not only when the policy is set."""
    program = write("exit 0")
    with pytest.raises(BadSettings, match=r"rotation\.commands"):
        await rotator().test(rotation(program), Secret(b"new"))


async def test_a_program_that_is_not_there_is_a_setting_to_mend(tmp_path: Path) -> None:
    """It may come with the next deployment; until then the message says what is missing."""
    missing = tmp_path / "missing"
    with pytest.raises(BadSettings, match="cannot be run"):
        await rotator(missing).test(rotation(missing), Secret(b"new"))


async def test_a_program_that_everybody_can_write_is_not_run(write: Write, tmp_path: Path) -> None:
    """Whoever is on the machine could put another one in its place, and read every value that passes."""
    program = write(f"touch {tmp_path}/ran")
    link = tmp_path / "link"
    link.symlink_to(program)
    program.chmod(0o707)
    with pytest.raises(BadSettings, match="chmod o-w"):
        await rotator(link).test(rotation(link), Secret(b"new"))
    assert not (tmp_path / "ran").exists()
