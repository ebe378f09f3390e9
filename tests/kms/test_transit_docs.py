"""The page about transit does what it says: its commands are run, from an empty server to a worker that is let in."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from kms.errors import Denied, Disabled
from kms.port import Caller
from kms.transit import open_transit

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "transit.md").read_text()
CONTEXT = {"keyring": "payments"}
KEY = bytes(range(32))


class _Follower:
    """Runs the commands of a section, with folders of the test's own instead of the machine's."""

    def __init__(self, *, bao: Any, folder: Path) -> None:
        self._bao = bao
        self._folder = folder
        for name in ("etc", "var"):
            (folder / name).mkdir()
        shutil.copy(bao.cafile, folder / "etc" / "vault-ca.pem")

    def here(self, text: str) -> str:
        """`text` with the places of the page turned into those of the test."""
        text = text.replace("/etc/tokenbroker", str(self._folder / "etc"))
        text = text.replace("/var/lib/tokenbroker", str(self._folder / "var"))
        return text.replace("https://vault.example:8200", self._bao.url)

    def run(self, section: str) -> str:
        """What the commands of a section print."""
        body = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
        assert body is not None, section
        blocks = re.findall(r"^```sh\n(.*?)^```$", body[1], re.MULTILINE | re.DOTALL)
        assert blocks, section
        return "".join(
            self._bao.cli(self.here(block), cwd=self._folder, BAO_CACERT=str(self._bao.cafile)) for block in blocks
        )

    def configure(self, role_id: str) -> str:
        """Write the configuration of the page, and give its key URI."""
        block = re.search(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        assert block is not None
        text = self.here(block[1]).replace("ROLE_ID", role_id)
        (self._folder / "etc" / "broker.toml").write_text(text)
        found = re.search(r'"(transit:[^"]+)"', text)
        assert found is not None
        return found[1]


async def test_the_commands_of_the_page_work(bao_servers: ModuleType, tmp_path: Path) -> None:
    """Key, policy, login, configuration, workers, rotation, stop: each section does what it promises."""
    with bao_servers.serving(tls=True) as bao:
        page = _Follower(bao=bao, folder=tmp_path)
        page.run("Make a key")
        page.run("Let the broker use it, and nothing else")
        role_id = re.search(r"^[0-9a-f-]{36}$", page.run("Let the broker log in"), re.MULTILINE)
        assert role_id is not None
        uri = page.configure(role_id[0])
        told = page.run("Configure")
        assert "wraps and unwraps; transit, aes256-gcm96" in " ".join(told.split())
        async with open_transit(uri) as kms:
            assert (await kms.describe()).warnings == ()
        page.run("Let the server decide for each worker")
        async with open_transit(f"{uri}&worker_role=tokenbroker-workers") as kms:
            wrap = await kms.wrap(KEY, CONTEXT)
            assert await kms.unwrap(wrap, CONTEXT, Caller(worker="pay-1", groups=())) == KEY
            assert await kms.unwrap(wrap, CONTEXT, Caller(worker="pay-2", groups=("cashiers",))) == KEY
            with pytest.raises(Denied):
                await kms.unwrap(wrap, CONTEXT, Caller(worker="pay-2", groups=()))
            page.run("Change the key")
            assert (await kms.wrap(KEY, CONTEXT)).key_version == "2"
            with pytest.raises(Disabled):
                await kms.unwrap(wrap, CONTEXT)
            page.run("Stop a key at once")
            with pytest.raises(Disabled):
                await kms.wrap(KEY, CONTEXT)


def test_the_messages_in_the_page_exist() -> None:
    """What the table of refusals quotes is in the messages of the code, and every row is about one."""
    table = PAGE.partition("## When it refuses")[2]
    rows = [row for row in re.findall(r"^\| ([^|]+) \| [^|]+ \|$", table, re.MULTILINE) if row != "message says"]
    sources = "\n".join(path.read_text() for path in (ROOT / "kms" / "transit").glob("*.py"))
    joined = re.sub(r'"\s*f?"', "", sources)
    assert len(rows) == 12
    assert [row for row in rows if row not in joined] == []
