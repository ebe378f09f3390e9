"""The pages about rotators: their policies are such as rotators take, and the service that one shows works."""

from __future__ import annotations

import base64
import re
import secrets
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from broker.cli.rotation import app
from broker.clock import SystemClock
from broker.secret import Secret
from broker.upstream.catalog import open_rotator
from broker.upstream.errors import Refused
from broker.upstream.port import Rotation, Site

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto"
PAGES = ("rotate-postgresql", "rotate-oauth2", "rotate-aws-keys", "rotate-by-webhook")
PATIENCE_S = 20.0
HOSTS = frozenset({"db1.internal:5432", "login.example.com", "api.example.com"})


def policies(page: str) -> Iterator[list[str]]:
    """The arguments of each `tokenbroker rotation set` of a page."""
    text = (HOWTO / f"{page}.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```sh\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("tokenbroker rotation set "):
                yield shlex.split(line)[3:]


def pairs(given: list[str]) -> dict[str, str]:
    """NAME=TEXT, by name."""
    return dict(each.split("=", 1) for each in given)


@pytest.mark.parametrize("page", PAGES)
async def test_the_policies_of_a_page_are_taken(page: str) -> None:
    """The command line reads each policy, and its rotator finds nothing wrong with it."""
    found = list(policies(page))
    assert found
    for arguments in found:
        command: Any = get_command(app)
        read = command.commands["set"].make_context("set", list(arguments)).params
        site = Site(clock=SystemClock(), hosts=HOSTS, webhooks=frozenset({"crm-rotator.internal:8443"}))
        async with open_rotator(read["rotator"], site) as rotator:
            rotator.check(pairs(read["setting"]), pairs(read["credential"]))


@contextmanager
def receiver(folder: Path, key: str) -> Iterator[str]:
    """The service of the page, running; its URL."""
    page = (HOWTO / "rotate-by-webhook.md").read_text(encoding="utf-8")
    code = re.search(r"^```python file=receiver\.py\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert code is not None
    (folder / "receiver.py").write_text(code[1])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"WEBHOOK_SECRET": key, "PORT": str(port)}
    with subprocess.Popen([sys.executable, folder / "receiver.py"], env=environment) as process:
        try:
            until = time.monotonic() + PATIENCE_S
            while not listens(port):
                assert time.monotonic() < until, "the service does not listen"
                assert process.poll() is None, "the service has ended"
            yield f"http://127.0.0.1:{port}/rotate"
        finally:
            process.kill()


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_the_service_of_the_page_works(tmp_path: Path) -> None:
    """It makes a value, takes it, forgets the former one, and believes nobody who has not its key."""
    key, other = ("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
    with receiver(tmp_path, key) as url:
        first, second = (
            Rotation(
                token="crm/key",
                settings={"url": url},
                credentials={"signing_key": Secret(key.encode())},
                id=secrets.token_hex(12),
            )
            for _ in range(2)
        )
        async with open_rotator("webhook", Site(clock=SystemClock(), webhooks=frozenset({"127.0.0.1"}))) as rotator:
            one = (await rotator.create(first, None)).value
            await rotator.set(first, one, None)
            two = (await rotator.create(second, one)).value
            await rotator.test(first, one)
            await rotator.test(second, two)
            await rotator.finish(second, two, one)
            with pytest.raises(Refused, match="422"):
                await rotator.test(first, one)
            stranger = Rotation(
                token="crm/key", settings={"url": url}, credentials={"signing_key": Secret(other.encode())}, id="x"
            )
            with pytest.raises(Refused, match="401"):
                await rotator.create(stranger, two)
            await rotator.abandon(second, two)
            with pytest.raises(Refused, match="422"):
                await rotator.test(second, two)
