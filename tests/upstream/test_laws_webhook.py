"""The rotator `webhook` keeps the laws, with a service on a real socket."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest

from broker.clock import SystemClock
from broker.secret import Secret
from broker.upstream.catalog import open_rotator
from broker.upstream.conformance import BadTerms, RotatorLaws, RotatorWorld
from broker.upstream.port import Site

TOKEN = "laws/value"


@dataclass(kw_only=True)
class ReceiverWorld(RotatorWorld):
    """What the service keeps of the token that the laws rotate."""

    receiver: Any

    async def works(self, value: Secret) -> bool:
        return any(value.reveal() in target.values for target in self.receiver.targets.values())

    async def live(self) -> int:
        return len(self.receiver.target(TOKEN).values)

    def wrong(self, value: Secret) -> Secret:
        return Secret(value.reveal()[::-1])


@asynccontextmanager
async def receiver_world(module: ModuleType, *, first: bool, generates: bool = False) -> AsyncIterator[ReceiverWorld]:
    """A world around a fresh service."""
    async with module.receiving() as receiver:
        receiver.generates = generates
        settings = {"url": receiver.url}
        here = urlsplit(receiver.url).netloc
        current, other = secrets.token_bytes(24), secrets.token_bytes(24)
        receiver.target("somebody/else").values.add(other)
        if not first:
            receiver.target(TOKEN).values.add(current)
        named = {"signing_key": "laws/key"}
        async with open_rotator("webhook", Site(clock=SystemClock(), webhooks=frozenset({here}))) as rotator:
            yield ReceiverWorld(
                receiver=receiver,
                rotator=rotator,
                settings=settings,
                credentials={"signing_key": Secret(receiver.secret)},
                wrong_credentials={"signing_key": Secret(b"whsec_" + b"bm90LXRoZS1rZXktdGhhdC1pdC1rbm93cyE=")},
                current=None if first else Secret(current),
                bystander=Secret(other),
                bad_terms=(
                    BadTerms(names="url", settings={}, credentials=named),
                    BadTerms(names="url", settings={"url": "ftp://127.0.0.1/"}, credentials=named),
                    BadTerms(names="url", settings={"url": "http://hooks.example/"}, credentials=named),
                    BadTerms(names="url", settings={"url": f"https://a:b@{here}/"}, credentials=named),
                    BadTerms(names="rotation.webhooks", settings={"url": "https://hooks.example/"}, credentials=named),
                    BadTerms(names="rotation.webhooks", settings={"url": "http://127.0.0.1:1/"}, credentials=named),
                    BadTerms(names="colour", settings={**settings, "colour": "red"}, credentials=named),
                    BadTerms(names="signing_key", settings=settings, credentials={}),
                    BadTerms(names="other", settings=settings, credentials={**named, "other": "x/y"}),
                ),
            )


class TestWebhook(RotatorLaws):
    """A service that makes the values."""

    name: ClassVar[str] = "webhook"

    @pytest.fixture
    async def world(self, webhook_receiver: ModuleType) -> AsyncIterator[RotatorWorld]:
        """A service that takes one value."""
        async with receiver_world(webhook_receiver, first=False) as world:
            yield world

    @pytest.fixture
    async def first_world(self, webhook_receiver: ModuleType) -> AsyncIterator[RotatorWorld]:
        """A service that takes none yet."""
        async with receiver_world(webhook_receiver, first=True) as world:
            yield world


class TestWebhookThatHasValuesMade(RotatorLaws):
    """A service that has the broker make the values."""

    name: ClassVar[str] = "webhook"

    @pytest.fixture
    async def world(self, webhook_receiver: ModuleType) -> AsyncIterator[RotatorWorld]:
        """A service that takes one value."""
        async with receiver_world(webhook_receiver, first=False, generates=True) as world:
            yield world

    @pytest.fixture
    async def first_world(self, webhook_receiver: ModuleType) -> AsyncIterator[RotatorWorld]:
        """A service that takes none yet."""
        async with receiver_world(webhook_receiver, first=True, generates=True) as world:
            yield world
