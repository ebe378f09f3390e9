"""Put many tokens at once: each on its own, so that one bad item never fails the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from broker.admin.asked import NewVersion
from broker.admin.put import Put, TokenPutter
from broker.errors import BrokerError

AT_ONCE_MAX: Final = 16
"""Puts under way together: they share trips to the disk."""


async def put_each(putter: TokenPutter, items: Sequence[NewVersion], *, actor: str) -> list[Put | BrokerError]:
    """Put every item; for each, in order, what was stored or why not.

    Items of one token are put in the order given. Cancelled, some are stored and some are not; each is whole or absent.
    """
    results: list[Put | BrokerError | None] = [None] * len(items)
    lines: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        lines.setdefault(item.token, []).append(index)
    gate = asyncio.Semaphore(AT_ONCE_MAX)

    async def put_line(indexes: list[int]) -> None:
        async with gate:
            for index in indexes:
                try:
                    results[index] = await putter.put(items[index], actor=actor)
                except BrokerError as refused:
                    results[index] = refused

    async with asyncio.TaskGroup() as group:
        for indexes in lines.values():
            group.create_task(put_line(indexes))
    return [result for result in results if result is not None]
