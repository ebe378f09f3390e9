"""Forty canaries as values: leased, rotated, revealed, refused; then looked for wherever a broker leaves bytes."""

from __future__ import annotations

import base64
import json
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.admin.asked import NewVersion
from broker.audit.export import export
from broker.errors import BrokerError

COUNT = 40


def canaries() -> list[bytes]:
    """Half are text (some with signs that JSON escapes), half are bytes that are no text."""
    texts = [f'canary "{secrets.token_hex(16)}"\n\u00e9\\'.encode() for _ in range(COUNT // 2)]
    return texts + [b"\xff\x00" + secrets.token_bytes(24) for _ in range(COUNT // 2)]


def disguises(value: bytes) -> Iterator[bytes]:
    """How a value may look in a file: raw, hexadecimal, base64 of every alignment, JSON, a Python repr."""
    yield value
    yield value.hex().encode()
    yield value.hex().upper().encode()
    for shift in range(3):
        # Without the ends, whose signs depend on the neighbours.
        inner = base64.b64encode(bytes(shift) + value)[4:-4]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")
    yield repr(value)[2:-1].encode()
    text = value.decode("utf-8", "backslashreplace")
    yield json.dumps(text)[1:-1].encode()
    yield json.dumps(text, ensure_ascii=False)[1:-1].encode()


def found_in(name: str, content: bytes, values: list[bytes]) -> list[str]:
    """Where which canary sings."""
    return [f"canary {index} in {name}" for index, v in enumerate(values) for d in disguises(v) if d in content]


def test_the_search_finds_what_it_looks_for() -> None:
    """A canary in any disguise, in the midst of other bytes, is found."""
    values = canaries()
    for value in (values[0], values[-1]):
        for leak in (value, value.hex().encode(), base64.b64encode(b"xy" + value + b"z"), repr(value).encode()):
            assert found_in("leak", b"before " + leak + b" after", values)
    assert found_in("leak", json.dumps({"v": values[0].decode()}).encode(), values)
    assert found_in("clean", secrets.token_bytes(100_000), values) == []


async def live_through_everything(house: Any, wire: Any, values: list[bytes]) -> None:
    """Every way that a value takes through a broker, and every error on it that can be had."""
    who = house.workers["ci-1"]
    names = [f"github/c{index}" for index in range(COUNT)]
    for name, value in zip(names[:30], values[:30], strict=True):
        await house.services.putter.put(NewVersion(token=name, value=value), actor="admin:root")
    await house.settled()
    async with wire.dial(house.url) as worker:
        await worker.handshake(who)
        leases = {name: await worker.lease(name) for name in names[:30]}
        for name, value in zip(names[:10], values[30:], strict=True):
            await house.services.putter.put(NewVersion(token=name, value=value), actor="admin:root")
        for _ in range(10):
            pushed = await worker.push()
            await worker.send(type="ack", lease=pushed["lease"], version=2, status="failed", detail="cannot")
        await house.services.leases.revoke(
            lease=leases[names[20]]["lease"], token=None, worker=None, reason="x", actor="admin:root", wait_s=0.2
        )
        house.storage.refuse = lambda commit: bool(commit.inserts)
        assert (await worker.ask("lease", token=names[20]))["code"] == "unavailable"
        house.storage.refuse = lambda commit: False
    for name in (*names[:30:3], "github/none"):
        try:
            revealed = await house.services.revealer.reveal(name, version=None, actor="admin:root")
            revealed.value.wipe()
        except BrokerError:
            assert name == "github/none"
    with pytest.raises(BrokerError):
        await house.services.putter.put(NewVersion(token="NO", value=values[0]), actor="admin:root")
    with pytest.raises(BrokerError):
        await house.services.putter.put(
            NewVersion(token=names[0], value=values[0], keyring="absent"), actor="admin:root"
        )
    async with wire.dial(house.url) as worker:
        await worker.handshake(who)
        stated = [{"lease": granted["lease"], "version": 1} for granted in leases.values()]
        await worker.ask("resume", leases=stated)


@pytest.fixture
def output(capfd: Any, caplog: pytest.LogCaptureFixture) -> Any:
    """All that was written to standard output, standard error and the log, at the chattiest level."""
    caplog.set_level(logging.DEBUG)
    return lambda: "".join((*capfd.readouterr(), caplog.text)).encode()


async def test_no_canary_is_found_in_anything_that_a_broker_leaves(
    open_house: Any, prepare: Any, wire: Any, tmp_path: Path, output: Any
) -> None:
    """Database and its log, output, log lines, metrics, status, audit export, in any disguise: none."""
    values = canaries()
    left: dict[str, bytes] = {}
    async with open_house() as house:
        await prepare(house)
        await live_through_everything(house, wire, values)
        async with aiohttp.ClientSession() as http:
            for path in ("metrics", "readyz", "openapi.json"):
                async with http.get(f"{house.url}/{path}") as response:
                    left[path] = await response.read()
        await export(house.storage, tmp_path / "export")
        left["reprs"] = repr((house.broker.context, list(house.broker.context.holdings))).encode()
        for path in house.config.parent.iterdir():
            left[f"live {path.name}"] = path.read_bytes()
        config = house.config
    left |= {str(path): path.read_bytes() for path in config.parent.rglob("*") if path.is_file()}
    left |= {str(path): path.read_bytes() for path in (tmp_path / "export").rglob("*") if path.is_file()}
    left["output"] = output()
    assert any("-wal" in name for name in left)
    assert len(left["metrics"]) > 1000
    assert len(left["output"]) > 1000
    assert [leak for name, content in left.items() for leak in found_in(name, content, values)] == []


async def test_no_canary_is_found_in_what_a_serving_process_writes(
    open_house: Any, prepare: Any, wire: Any, serving: Any
) -> None:
    """At the chattiest level, with bad frames and errors: not a byte of a value."""
    values = canaries()
    async with open_house() as house:
        who = await prepare(house)
        for index, value in enumerate(values):
            await house.services.putter.put(NewVersion(token=f"github/c{index}", value=value), actor="admin:root")
        config = house.config
    output = config.parent / "serve.log"
    async with serving(config, output, log__level="debug") as broker:
        async with wire.dial(broker.url) as worker:
            await worker.handshake(who)
            for index in range(COUNT):
                await worker.lease(f"github/c{index}")
            await worker.raw(b"\xff")
            await worker.text("nonsense")
            await worker.ask("lease", token="NO")
        await broker.stop()
    content = output.read_bytes()
    assert b"listening on" in content
    assert found_in("output", content, values) == []
