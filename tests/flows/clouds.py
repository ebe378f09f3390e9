"""Clusters whose KMS is a real server behind a proxy that counts, hangs up and refuses on demand; the same for each."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broker import foundations
from broker.api import probes
from broker.clock import SystemClock
from broker.settings import Settings, load_settings
from broker.setup.initialising import initialise
from broker.setup.layout import layout_of
from broker.vault.settings import VaultSettings

CALL_S = 20.0
"""How long a KMS call may take here: real servers on a slow machine are no outage, and faults need no waiting."""
ANYWHERE = {"TOKENBROKER_SERVER__LISTEN": "127.0.0.1:0"}


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """One KMS. proxy: stands before it. refusal, outage, well: faults of it. make_key: makes a key; its URI.

    opened: how this KMS says that the key of a URI opened something to these bytes.
    """

    proxy: Any
    refusal: Any
    outage: Any
    well: Any
    make_key: Callable[[], str]
    opened: Callable[[str, bytes], bytes]

    async def key(self) -> str:
        """The URI of a key of its own."""
        return await asyncio.to_thread(self.make_key)

    def unwraps(self) -> int:
        """How often a key was asked to open something, since the proxy was told to forget."""
        return sum(count for name, count in self.proxy.counts.items() if "decrypt" in name.lower())

    def refuse(self) -> None:
        """Say no to everything."""
        self.proxy.fault = self.refusal

    def hang_up(self) -> None:
        """Cut every connection without an answer."""
        self.proxy.fault = self.outage

    def recover(self) -> None:
        """Serve, and count from 0."""
        self.proxy.fault = self.well
        self.proxy.forget()


@asynccontextmanager
async def aws(moto: Any, proxies: Any) -> AsyncIterator[Cloud]:
    """AWS KMS, played by moto."""
    async with proxies.FaultProxy(moto.url) as proxy:
        said = b'{"__type":"AccessDeniedException","message":"not authorized to perform this"}'
        yield Cloud(
            proxy=proxy,
            refusal=proxies.Fault(status=400, body=said),
            outage=proxies.Fault(hang_up=True),
            well=proxies.Fault(),
            make_key=lambda: f"aws-kms:{moto.create_key()}?endpoint={proxy.url}",
            opened=lambda uri, key: json.dumps(
                {
                    "KeyId": uri.removeprefix("aws-kms:").partition("?")[0],
                    "Plaintext": b64encode(key).decode(),
                    "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
                }
            ).encode(),
        )


@asynccontextmanager
async def transit(bao: Any, bao_servers: Any, proxies: Any, folder: Path) -> AsyncIterator[Cloud]:
    """Transit of a real OpenBao server."""
    async with proxies.FaultProxy(bao.url) as proxy:

        def make_key() -> str:
            home = folder / f"transit-{len(list(folder.iterdir()))}"
            home.mkdir(mode=0o700)
            uri: str = bao_servers.TransitKey(bao=bao, folder=home).uri()
            return uri.replace(bao.url, proxy.url)

        said = b'{"errors":["permission denied"]}'
        yield Cloud(
            proxy=proxy,
            refusal=proxies.Fault(status=403, body=said, content_type="application/json"),
            outage=proxies.Fault(hang_up=True),
            well=proxies.Fault(),
            make_key=make_key,
            opened=lambda _, key: json.dumps({"data": {"plaintext": b64encode(key).decode()}}).encode(),
        )


def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every KMS call CALL_S, and those who wait for one longer."""
    for bound in ("adapter.ATTEMPT_S", "adapter.CONNECT_S", "http.ATTEMPT_S", "http.CONNECT_S"):
        monkeypatch.setattr(f"kms.aws.{bound}", CALL_S)
    monkeypatch.setattr("kms.transit.server.REQUEST_S", CALL_S)
    monkeypatch.setattr(probes, "CHECK_S", 2 * CALL_S)
    patient = partial(VaultSettings, call_s=CALL_S, check_s=CALL_S, wait_s=2 * CALL_S)
    monkeypatch.setattr(foundations, "VaultSettings", patient)
    monkeypatch.setattr(foundations, "open_kms", partial(foundations.open_kms, deadline_s=CALL_S))


def write_config(config: Path, keys: list[str], *, more_kms: str = "", sections: str = "") -> None:
    """The configuration of a cluster beside its file; a pin that is there already stays."""
    pin = ""
    if config.exists():
        pin = "\n".join(line for line in config.read_text().splitlines() if line.startswith("id ="))
    config.write_text(
        f"[cluster]\n{pin}\n\n"
        f'[storage]\nurl = "sqlite:///{config.parent / "broker.db"}"\n\n'
        f"[kms]\nkeys = {json.dumps(keys)}\n{more_kms}\n\n{sections}\n"
    )
    config.chmod(0o600)


async def found(config: Path) -> None:
    """What `tokenbroker init --config` does."""
    layout = layout_of(data_dir=None, config=config)
    await initialise(layout, own_config=True, passphrase_file=None, new_credential=False, clock=SystemClock())


def read(config: Path) -> Settings:
    """The configuration as a reload reads it."""
    return load_settings(config, ANYWHERE)


async def pass_time(house: Any, seconds: float) -> None:
    """Move the house's clock on in steps, at each of which everything that asks a KMS gets its answer."""
    counters = house.broker.vault.counters
    while seconds > 0:
        step = min(seconds, 2.0)
        seconds -= step
        await house.elapse(step)
        await house.until(lambda: counters.in_flight == 0, within_s=20)
