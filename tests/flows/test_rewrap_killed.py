"""kill -9 in the middle of `key rewrap --values`, under load: run it again, and it goes on where it was."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp

TOKENS = 400
KILLS = 3
SLOW, FAST = 25, 10_000
"""Values a second: so slow that a kill comes in the middle on any machine, and as fast as may be."""
COMMAND = "from broker.cli.main import main; main()"


async def rewrap(profile: Path, url: str, rate: int) -> tuple[int, str]:
    """Run `key rewrap --values --json` to its end; exit code and standard output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", COMMAND, "key", "rewrap", "default", "--values", "--rate", f"{rate}", "--json"),
        *("--url", url, "--profile", str(profile)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ},
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


def left(config: Path, data_key: str) -> int:
    """How many versions are sealed under this data key, whoever writes meanwhile."""
    with closing(sqlite3.connect(f"file:{config.parent / 'broker.db'}?mode=ro", uri=True)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM version WHERE data_key = ?", (data_key,)).fetchone()
        return int(count)


async def lease_on(url: str, who: Any, wire: Any, wrong: list[Any]) -> None:
    """Lease one token after another until the connection breaks; whatever is not the token's value is wrong."""
    with contextlib.suppress(wire.Closed, aiohttp.ClientError, ConnectionError):
        async with wire.dial(url) as worker:
            if (await worker.handshake(who))["type"] != "welcome":
                return
            number = 0
            while True:
                number = (number + 7) % TOKENS
                granted = await worker.ask("lease", token=f"github/t{number}")
                if granted.get("value") != f"value-{number}":
                    wrong.append(granted)
                await worker.ask("release", leases=[granted["lease"]])


async def test_three_kills_in_the_middle_lose_no_value(
    *, open_house: Any, prepare: Any, house_parts: Any, wire: Any, serving: Any, founded: Any
) -> None:
    """Workers lease right values throughout; at the end all is under the active key, and the former can go."""
    async with open_house() as house:
        config = house.config
        who = await prepare(house)
        for number in range(TOKENS):
            await house.services.putter.put(
                house_parts.NewVersion(token=f"github/t{number}", value=f"value-{number}".encode()), actor="admin:root"
            )
        old = house.services.keys.keyring("default").active_data_key
        await house.services.keys.rotate("default", actor="admin:root")
    wrong: list[Any] = []
    codes: list[int] = []
    for kill in range(KILLS + 1):
        async with serving(config, config.parent / "serve.log") as broker, asyncio.TaskGroup() as tasks:
            tasks.create_task(lease_on(broker.url, who, wire, wrong))
            running = tasks.create_task(rewrap(founded.profile, broker.url, SLOW if kill < KILLS else FAST))
            if kill < KILLS:
                before = left(config, old)
                await house_parts.until(lambda before=before: left(config, old) < before, within_s=30)
                await broker.kill()
                assert left(config, old) > 0
            code, out = await running
            codes.append(code)
            await broker.kill()
    assert codes == [1] * KILLS + [0]
    (total,) = json.loads(out)
    assert (total["remaining"], total["failures"]) == (0, [])
    assert wrong == []
    async with open_house() as house:
        assert (await house.services.retirer.destroy(old, actor="admin:root")).state == "destroyed"
        for number in range(TOKENS):
            shown = await house.services.revealer.reveal(f"github/t{number}", version=1, actor="admin:root")
            assert shown.value.reveal() == f"value-{number}".encode()
        resealed = [entry for entry in await house_parts.audit_entries(house.storage) if getattr(entry, "values", 0)]
        assert sum(entry.values for entry in resealed) == TOKENS + 1
        assert await house.broker.authority.check() == []
        assert (await house.verified()).problems == []
