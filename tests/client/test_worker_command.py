"""`tokenbroker-worker`, run as a process against a fake broker on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tokenbroker_client import WorkerKey
from tokenbroker_client.command import main
from tokenbroker_client.testing import FakeBroker
from tokenbroker_client.wire import AckStatus, unb64

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


@dataclass(frozen=True)
class Ended:
    """What a finished process left."""

    code: int
    out: bytes
    err: str


async def start(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    """Start the command with a clean environment."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tokenbroker_client.command",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=kept | environment,
    )


async def end(process: asyncio.subprocess.Process, stdin: bytes = b"") -> Ended:
    """Wait for the process, at most twenty seconds."""
    async with asyncio.timeout(20):
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Ended(process.returncode, out, err.decode())


async def run(*arguments: str, stdin: bytes = b"", **environment: str) -> Ended:
    """Run the command to its end."""
    return await end(await start(*arguments, **environment), stdin)


@pytest.fixture
def worker(fake: FakeBroker, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a registered worker."""
    path = tmp_path / "worker.key"
    fake.worker_key("ci-1").save(path)
    return {"TOKENBROKER_URL": fake.url, "TOKENBROKER_KEY": str(path)}


# -- keygen ----------------------------------------------------------------------------------------------------


async def test_keygen_writes_a_private_file_and_prints_the_public_key(tmp_path: Path) -> None:
    """The operator gets what `worker register` takes; the private half stays in a file of mode 0600."""
    path = tmp_path / "key"
    ended = await run("keygen", "--out", str(path))
    assert ended.code == 0
    assert unb64(ended.out.decode().strip(), length=32) == WorkerKey.load(path).public_key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = await run("keygen", "--out", str(path))
    assert (again.code, again.out) == (1, b"")
    assert again.err.count("\n") == 1
    assert "exists already" in again.err


async def test_keygen_speaks_json(tmp_path: Path) -> None:
    """With --json one document has the facts."""
    path = tmp_path / "key"
    ended = await run("keygen", "--out", str(path), "--worker", "ci-1", "--json")
    public_key = WorkerKey.load(path).public_key_b64
    assert json.loads(ended.out) == {"public_key": public_key, "key_file": str(path), "worker": "ci-1"}


# -- enroll ----------------------------------------------------------------------------------------------------


async def test_enroll_makes_a_worker(fake: FakeBroker, tmp_path: Path) -> None:
    """A code from a file registers a fresh key, which leases without naming its worker again."""
    (tmp_path / "code").write_text(fake.enrolment_code("ci-9") + "\n")
    key = str(tmp_path / "key")
    ended = await run("enroll", "--url", fake.url, "--code-file", str(tmp_path / "code"), "--out", key, "--json")
    assert ended.code == 0, ended.err
    facts = json.loads(ended.out)
    assert (facts["worker"], facts["cluster"], facts["key_file"]) == ("ci-9", fake.cluster, key)
    assert WorkerKey.load(key).cluster == fake.cluster
    leased = await run("lease", "github/ci", "--url", fake.url, "--key", key)
    assert (leased.code, leased.out) == (0, b"v1")


async def test_enroll_reads_the_code_from_standard_input(fake: FakeBroker, tmp_path: Path) -> None:
    """With - the code needs no file."""
    code = fake.enrolment_code("ci-9").encode()
    ended = await run("enroll", "--url", fake.url, "--code-file", "-", "--out", str(tmp_path / "key"), stdin=code)
    assert (ended.code, ended.out) == (0, b"ci-9\n")


async def test_a_code_serves_once(fake: FakeBroker, tmp_path: Path) -> None:
    """A refused code leaves no key file behind and gives the broker's reason, not the code."""
    code = fake.enrolment_code("ci-9")
    options = ("enroll", "--url", fake.url, "--code-file", "-", "--out")
    assert (await run(*options, str(tmp_path / "one"), stdin=code.encode())).code == 0
    ended = await run(*options, str(tmp_path / "two"), stdin=code.encode())
    assert ended.code == 1
    assert "wrong, used or expired" in ended.err
    assert code not in ended.err
    assert not (tmp_path / "two").exists()


async def test_enroll_without_a_broker_spends_nothing(tmp_path: Path, unused_tcp_port: int) -> None:
    """When nobody listens the message says that the code is good still, and no key is left."""
    url = f"http://127.0.0.1:{unused_tcp_port}"
    ended = await run("enroll", "--url", url, "--code-file", "-", "--out", str(tmp_path / "key"), stdin=b"tbe_a.b")
    assert ended.code == 1
    assert "not spent" in ended.err
    assert not (tmp_path / "key").exists()


async def test_enroll_refuses_what_is_no_code(fake: FakeBroker, tmp_path: Path) -> None:
    """Another file given by mistake is not sent to the broker, nor shown."""
    ended = await run("enroll", "--url", fake.url, "--code-file", "-", "--out", str(tmp_path / "k"), stdin=b"hunter2")
    assert ended.code == 1
    assert "hunter2" not in ended.err


# -- lease -----------------------------------------------------------------------------------------------------


async def test_lease_prints_the_value_and_gives_it_back(fake: FakeBroker, worker: dict[str, str]) -> None:
    """Text is printed with a newline, and the lease is over when the command is."""
    ended = await run("lease", "github/ci", **worker)
    assert (ended.code, ended.out, ended.err) == (0, b"v1", "")
    assert [entry.code for entry in fake.leases] == ["released"]


async def test_lease_prints_bytes_as_they_are(fake: FakeBroker, worker: dict[str, str]) -> None:
    """A value that is no text is not touched, not even by a newline."""
    fake.put("any/bytes", b"\x00\xff")
    assert (await run("lease", "any/bytes", **worker)).out == b"\x00\xff"


async def test_lease_prints_the_previous_version(worker: dict[str, str], fake: FakeBroker) -> None:
    """With --stage previous it is the value before the current one, and the document says so."""
    fake.put("github/ci", "v2")
    facts = json.loads((await run("lease", "github/ci", "--json", "--stage", "previous", **worker)).out)
    assert (facts["value"], facts["version"], facts["stage"]) == ("v1", 1, "previous")


async def test_lease_speaks_json(worker: dict[str, str]) -> None:
    """With --json one document has value, encoding and version."""
    facts = json.loads((await run("lease", "github/ci", "--json", "--ttl", "1m", **worker)).out)
    assert 59 < facts.pop("ttl_s") <= 60
    assert facts == {
        "token": "github/ci",
        "version": 1,
        "stage": "current",
        "value": "v1",
        "encoding": "utf8",
        "content_type": "text/plain",
    }


async def test_lease_holds_until_it_is_told_to_stop(fake: FakeBroker, worker: dict[str, str]) -> None:
    """With --hold each value is printed as it comes; SIGTERM ends it in order and gives the lease back."""
    process = await start("lease", "github/ci", "--hold", **worker)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"v1\n"
        await fake.rotate("github/ci", "v2")
        assert await process.stdout.readline() == b"v2\n"
    process.send_signal(signal.SIGTERM)
    assert (await end(process)).code == 0
    assert [entry.code for entry in fake.leases] == ["released"]


async def test_a_revocation_ends_a_held_lease(fake: FakeBroker, worker: dict[str, str]) -> None:
    """With --hold a revocation ends the command with 1 and the operator's reason, once the broker has been told."""
    process = await start("lease", "github/ci", "--hold", **worker)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        await process.stdout.readline()
    await fake.revoke("github/ci", reason="leaked")
    ended = await end(process)
    assert ended.code == 1
    assert "leaked" in ended.err
    assert [ack.status for ack in fake.acks] == [AckStatus.WIPED]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lease", "no/such"), "denied"),
        (("lease", "UPPER"), "token name"),
        (("lease", "github/ci", "--worker", "ci-2"), "did not accept"),
        (("lease", "github/ci", "--key", "none.key"), "No such file"),
        (("lease", "github/ci", "--url", "ws://broker.example"), "loopback"),
        (("lease", "github/ci", "--url", "ws://127.0.0.1:1", "--wait", "0.1s"), "no session"),
        (("lease", "github/ci", "--ca-file", "none.pem"), "none.pem"),
    ],
)
async def test_what_fails_says_why_in_one_line(worker: dict[str, str], arguments: tuple[str, ...], words: str) -> None:
    """Each failure exits with 1 and one line that names it; nothing goes to standard output."""
    ended = await run(*arguments, **worker)
    assert (ended.code, ended.out) == (1, b"")
    assert words in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("lease",),
        ("lease", "github/ci", "--ttl", "5"),
        ("lease", "github/ci", "--", "true"),
        ("exec", "--token", "github/ci=X"),
        ("exec", "--token", "github/ci", "--", "true"),
        ("exec", "--token", "github/ci=1X", "--", "true"),
        ("exec", "--", "true"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Usage errors exit with 2 and say how it should be."""
    monkeypatch.setenv("TOKENBROKER_KEY", "worker.key")
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: tokenbroker-worker" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("lease", "github/ci", "hunter2"),
        ("lease", "github/ci", "--value", "hunter2"),
        ("keygen", "--out", "f", "--seed=hunter2"),
        ("exec", "--token", "a/b=X", "hunter2", "--", "true"),
    ],
)
def test_what_is_typed_too_much_is_not_shown_again(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A secret in the wrong place ends in a usage error that does not repeat it."""
    monkeypatch.setenv("TOKENBROKER_KEY", "worker.key")
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "hunter2" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["keygen", "enroll", "lease", "exec"])
def test_every_verb_has_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` shows a line to start from."""
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert f"example: tokenbroker-worker {verb} " in capsys.readouterr().out


# -- exec ------------------------------------------------------------------------------------------------------


async def test_exec_puts_values_into_the_environment(fake: FakeBroker, worker: dict[str, str]) -> None:
    """The command finds each value in its variable; the values are in no argument list, and the leases end with it."""
    fake.put("db/password", b"p\xff=")
    script = "import os,sys; sys.stdout.buffer.write(os.environb[b'CI']+b'|'+os.environb[b'DB'])"
    tokens = ("--token", "github/ci=CI", "--token", "db/password=DB")
    ended = await run("exec", *tokens, "--", sys.executable, "-c", script, **worker)
    assert (ended.code, ended.out) == (0, b"v1|p\xff=")
    assert {entry.code for entry in fake.leases} == {"released"}


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -TERM $$", 143), ("exit 0", 0)])
async def test_exec_exits_as_its_command_does(worker: dict[str, str], script: str, code: int) -> None:
    """Its exit code is the command's, or 128 and the signal that ended it."""
    assert (await run("exec", "--token", "github/ci=CI", "--", "sh", "-c", script, **worker)).code == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
async def test_exec_forwards_signals(fake: FakeBroker, worker: dict[str, str], number: signal.Signals) -> None:
    """The command gets the signal and decides what it means; the lease is given back afterwards."""
    script = (
        "import signal,sys,time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True)\n"
        "time.sleep(30)\n"
    )
    process = await start("exec", "--token", "github/ci=CI", "--", sys.executable, "-c", script, **worker)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert (await end(process)).code == 42
    assert [entry.code for entry in fake.leases] == ["released"]


async def test_a_rotation_is_owned_up_to(fake: FakeBroker, worker: dict[str, str]) -> None:
    """An environment cannot be changed, so the broker hears that the rotation was not applied."""
    process = await start("exec", "--token", "github/ci=CI", "--", "sh", "-c", "echo on; read x", **worker)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"on\n"
        await fake.rotate("github/ci", "v2")
        ack = await fake.wait_for_ack("github/ci", AckStatus.FAILED, version=2)
    assert ack.detail == "a running command keeps the value it was started with"
    ended = await end(process, b"\n")
    assert "keeps the value" in ended.err


async def test_a_revocation_can_stop_the_command(fake: FakeBroker, worker: dict[str, str]) -> None:
    """With --stop-on-revoke the command is terminated, and only then is the value reported as wiped."""
    options = ("exec", "--stop-on-revoke", "--token", "github/ci=CI")
    process = await start(*options, "--", "sh", "-c", "echo on; exec sleep 30", **worker)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        assert await process.stdout.readline() == b"on\n"
        await fake.revoke("github/ci")
        await fake.wait_for_ack("github/ci", AckStatus.WIPED, within_s=15)
    assert (await end(process)).code == 143


async def test_exec_names_a_command_that_is_not_there(fake: FakeBroker, worker: dict[str, str]) -> None:
    """As in a shell, 127 says not found and 126 not executable."""
    options = ("exec", "--token", "github/ci=CI", "--")
    assert (await run(*options, "no-such-command", **worker)).code == 127
    assert (await run(*options, "/", **worker)).code == 126
    assert {entry.code for entry in fake.leases} == {"released"}


async def test_a_value_that_no_variable_can_hold_is_refused(fake: FakeBroker, worker: dict[str, str]) -> None:
    """A NUL byte would cut the value short, so the command is not run; the message does not show the value."""
    fake.put("any/bytes", b"canary\x00")
    ended = await run("exec", "--token", "any/bytes=X", "--", "true", **worker)
    assert ended.code == 1
    assert "NUL" in ended.err
    assert "canary" not in ended.err


async def test_exec_does_not_run_without_its_tokens(worker: dict[str, str], tmp_path: Path) -> None:
    """When one token is denied the command is not started."""
    ended = await run("exec", "--token", "no/such=X", "--", "touch", str(tmp_path / "ran"), **worker)
    assert ended.code == 1
    assert not (tmp_path / "ran").exists()
