"""A worker's side of the wire protocol, from its description alone: plain JSON over aiohttp, nothing of ours."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PATIENCE_S = 30.0
Frame = dict[str, Any]


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def transcript(  # noqa: PLR0917 - the order of the protocol
    cluster: str, worker: str, public_key: bytes, client: bytes, broker: bytes, binding: bytes
) -> bytes:
    """What is signed: each field behind its length, four bytes, big-endian."""
    fields = (b"tokenbroker/session/v1", cluster.encode(), worker.encode(), public_key, client, broker, binding)
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


class Identity:
    """A worker's name and key."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = Ed25519PrivateKey.generate()
        self.public_key = self.key.public_key().public_bytes_raw()


class Closed(Exception):
    """The broker closed the connection."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class Wire:
    """One connection. Answers are found by their id; what comes without one waits in `pushes`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, binding: bytes) -> None:
        self.socket = socket
        self.binding = binding
        self.pushes: list[Frame] = []
        self.answers: dict[int, Frame] = {}
        self.welcome: Frame = {}
        self.ids = 0

    async def send(self, **frame: Any) -> None:
        await self.socket.send_str(json.dumps(frame))

    async def text(self, text: str) -> None:
        await self.socket.send_str(text)

    async def raw(self, data: bytes) -> None:
        """A text frame of these bytes, whether or not they are UTF-8."""
        await self.socket.send_frame(data, aiohttp.WSMsgType.TEXT)

    async def receive(self, within_s: float = PATIENCE_S) -> Frame:
        """The next frame, whatever it is. Closed."""
        async with asyncio.timeout(within_s):
            message = await self.socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            # The frame's own code: aiohttp forgets it when the connection is gone before it can answer the close.
            raise Closed(message.data if message.type is aiohttp.WSMsgType.CLOSE else self.socket.close_code)
        frame: Frame = json.loads(message.data)
        return frame

    async def push(self, within_s: float = PATIENCE_S) -> Frame:
        """The next frame without an id."""
        async with asyncio.timeout(within_s):
            while not self.pushes:
                await self._sort()
        return self.pushes.pop(0)

    async def answer(self, number: int, within_s: float = PATIENCE_S) -> Frame:
        """The answer to a request."""
        async with asyncio.timeout(within_s):
            while number not in self.answers:
                await self._sort()
        return self.answers.pop(number)

    async def _sort(self) -> None:
        frame = await self.receive(3600)
        if "id" in frame:
            assert frame["id"] not in self.answers, "one request, one answer"
            self.answers[frame["id"]] = frame
        else:
            self.pushes.append(frame)

    async def ask(self, kind: str, **fields: Any) -> Frame:
        """Send a request and give its answer."""
        self.ids += 1
        await self.send(type=kind, id=self.ids, **fields)
        return await self.answer(self.ids)

    async def lease(self, token: str, **fields: Any) -> Frame:
        """A granted lease."""
        frame = await self.ask("lease", token=token, **fields)
        assert frame["type"] == "granted", frame
        return frame

    async def close_code(self, within_s: float = PATIENCE_S) -> int | None:
        """Read on to the end; the code that the broker closed with."""
        async with asyncio.timeout(within_s):
            while True:
                try:
                    await self._sort()
                except Closed as closed:
                    return closed.code

    async def silent(self, for_s: float = 0.2) -> bool:
        """Whether nothing comes for a while."""
        try:
            await self.receive(for_s)
        except TimeoutError:
            return True
        return False

    async def hello(self, who: Identity, nonce: bytes, **changed: Any) -> Frame:
        """Send hello, with some fields changed; the broker's reply."""
        fields = {
            "type": "hello",
            "worker": who.name,
            "auth": "ed25519",
            "nonce": b64(nonce),
            "public_key": b64(who.public_key),
            "client": "wire/1",
        }
        await self.send(**{name: value for name, value in {**fields, **changed}.items() if value is not None})
        return await self.receive()

    async def handshake(self, who: Identity, *, binding: bytes | None = None) -> Frame:
        """Prove to be `who`; the broker's last word: welcome, or an error."""
        nonce = os.urandom(32)
        challenge = await self.hello(who, nonce)
        if challenge["type"] != "challenge":
            return challenge
        signed = transcript(
            challenge["cluster"],
            who.name,
            who.public_key,
            nonce,
            unb64(challenge["nonce"]),
            self.binding if binding is None else binding,
        )
        await self.send(type="prove", signature=b64(who.key.sign(signed)))
        self.welcome = await self.receive()
        return self.welcome


@asynccontextmanager
async def dial(url: str, *, trust: ssl.SSLContext | None = None, headers: Any = None) -> AsyncIterator[Wire]:
    """A connection before its handshake. Certificates are believed unless `trust` says which; the binding is taken."""
    async with aiohttp.ClientSession() as http:
        socket = await http.ws_connect(
            f"{url}/v1/connect",
            protocols=["tokenbroker.v1"],
            ssl=False if trust is None else trust,
            headers=headers,
            max_msg_size=0,
            timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
        )
        tls = socket.get_extra_info("ssl_object")
        binding = b"" if tls is None else hashlib.sha256(tls.getpeercert(binary_form=True)).digest()
        try:
            yield Wire(socket, binding)
        finally:
            await socket.close()
