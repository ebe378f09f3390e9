"""Every block of code in the client's README runs as it stands, against a fake broker."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tokenbroker_client import WorkerKey
from tokenbroker_client.testing import FakeBroker

README = (Path(__file__).parents[2] / "client" / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(python|sh)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
async def test_the_readme_runs(fake: FakeBroker, tmp_path: Path, number: int) -> None:
    """A newcomer who copies a block gets what the README says."""
    language, code = BLOCKS[number]
    fake.put("db/orders", "hunter2")
    if "keygen" not in code:
        fake.worker_key("ci-1").save(tmp_path / "ci-1.key")
    program = [sys.executable, "-c"] if language == "python" else ["bash", "-euc"]
    process = await asyncio.create_subprocess_exec(
        *program,
        code.replace("wss://broker.example", fake.url),
        cwd=tmp_path,
        env=os.environ
        | {
            "TOKENBROKER_URL": fake.url,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        ended = tasks.create_task(process.communicate())
        while "lease.changes()" in code and not ended.done():
            await fake.rotate("db/orders", "hunter3")
            await asyncio.wait({ended}, timeout=0.1)
    out = ended.result()[0].decode()
    assert process.returncode == 0, out
    assert "hunter" not in out
    if "keygen" in code:
        assert WorkerKey.load(tmp_path / "ci-1.key").public_key_b64 == out.strip()


def test_the_readme_has_its_blocks() -> None:
    """The blocks are found, so the test above tests something."""
    assert [language for language, _ in BLOCKS].count("python") == 4
    assert [language for language, _ in BLOCKS].count("sh") == 2
