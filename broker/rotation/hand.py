"""The values that one attempt has in hand, from where they are opened until it has ended, and its error is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from broker.secret import Secret


class Hand:
    """secrets: all of them, so that no message which quotes one is kept. Made by `open_hand`."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.secrets: list[Secret] = []

    def take(self, *secrets: Secret) -> None:
        """Hold these too; they are wiped with the hand."""
        self.secrets += secrets

    async def hold(self, opened: AbstractAsyncContextManager[Mapping[str, Secret]]) -> Mapping[str, Secret]:
        """Hold what a context gives, and leave that with the hand."""
        secrets = await self._stack.enter_async_context(opened)
        self.secrets += secrets.values()
        return secrets


@asynccontextmanager
async def open_hand() -> AsyncIterator[Hand]:
    """A hand, whose values are wiped behind the block."""
    async with AsyncExitStack() as stack:
        hand = Hand(stack)
        try:
            yield hand
        finally:
            for secret in hand.secrets:
                secret.wipe()
