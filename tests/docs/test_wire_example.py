"""The example session of docs/spec/wire.md, replayed against a real broker by a client that knows only that page."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "spec" / "wire.md").read_text(encoding="utf-8")
TIMES = {"ttl_s", "max_ttl_s", "expires_at"}
"""Fields whose number on the page is an example; a real one is of the same kind."""


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def framed(*fields: bytes) -> bytes:
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


class Replay:
    """Plays one side of the script, and holds the broker to the other. names: what each `<name>` stood for."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.names: dict[str, str] = {"client nonce": b64(os.urandom(32)), "public key": b64(self._public)}

    @property
    def _public(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    def to_send(self, line: str) -> str:
        """The line with every name replaced by what it stands for; the signature is made when it is asked for."""
        if "<signature>" in line:
            nonces = [base64.urlsafe_b64decode(self.names[f"{side} nonce"] + "=") for side in ("client", "broker")]
            cluster = self.names["cluster"].encode()
            signed = framed(b"tokenbroker/session/v1", cluster, b"ci-1", self._public, *nonces, b"")
            self.names["signature"] = b64(self._key.sign(signed))
        return re.sub(r"<([a-z ]+)>", lambda match: self.names[match[1]], line)

    def expect(self, shown: Any, found: Any, where: str = "") -> None:
        """Hold what came to what the page shows: same fields, same values, names as they were before."""
        if isinstance(shown, dict):
            assert found.keys() == shown.keys(), f"{where}: {found}"
            for field, value in shown.items():
                self.expect(value, found[field], f"{where}.{field}")
        elif isinstance(shown, list):
            assert len(found) == len(shown), f"{where}: {found}"
            for index, value in enumerate(shown):
                self.expect(value, found[index], f"{where}[{index}]")
        elif isinstance(shown, str) and shown.startswith("<"):
            assert isinstance(found, str), where
            assert self.names.setdefault(shown[1:-1], found) == found, where
        elif where.rpartition(".")[2] in TIMES:
            assert isinstance(found, float | int), where
            assert found > 0, where
        else:
            assert found == shown, where


def script() -> list[tuple[str, str]]:
    """The lines of the example: who, and what."""
    block = re.search(r"```text session\n(.*?)```", PAGE, re.DOTALL)
    assert block, "the page has its example"
    return [(line[0], line[3:]) for line in block[1].splitlines() if line]


async def test_the_example_session_happens_as_shown(served: Any) -> None:
    """Every frame that the page shows is what a real broker sends, given what the page says is sent to it."""
    key = Ed25519PrivateKey.generate()
    replay = Replay(key)
    public = replay.names["public key"]
    await served.operate("POST", "/v1/workers", {"worker": "ci-1", "public_key": public, "groups": ["ci"]})
    await served.operate("POST", "/v1/grants", {"subject": "group:ci", "pattern": "github/ci-bot"})
    await served.operate("POST", "/v1/grants", {"subject": "worker:ci-1", "pattern": "db/**"})
    await served.operate("POST", "/v1/tokens/github/ci-bot/-/versions", {"value": "ghp_first"})
    await served.operate("POST", "/v1/tokens/db/password/-/versions", {"value_b64": b64(b"\xff\x00\xfe")})

    said = 0
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{served.url}/v1/connect", protocols=("tokenbroker.v1",)) as socket,
        asyncio.timeout(30),
    ):
        for who, line in script():
            if who == "C":
                await socket.send_str(replay.to_send(line))
            elif who == "O":
                method, path, *body = line.split(" ", 2)
                await served.operate(method, path, json.loads(body[0]) if body else None)
            elif line.startswith("close"):
                message = await socket.receive()
                assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, int(line.split()[1]))
                said += 1
            else:
                message = await socket.receive()
                assert message.type is aiohttp.WSMsgType.TEXT, f"{message} instead of {line}"
                replay.expect(json.loads(line), json.loads(message.data), line[:60])
                said += 1
    assert said > 10, "the example has not been cut away"
