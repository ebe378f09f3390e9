"""A disk with no room left: the process lives on, refuses what it cannot record, and recovers when there is room."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any


async def test_no_room_means_unavailable_until_there_is_room(
    open_house: Any, prepare: Any, wire: Any, serving: Any, config: Path
) -> None:
    """The system refuses to let any file grow; then it allows it again. No value leaves in between."""
    async with open_house() as house:
        who = await prepare(house)
        for number in range(400):
            if number % 100 == 0:
                await house.settled()
            await house.services.putter.put(_token(number), actor="admin:root")
    room = max(path.stat().st_size for path in config.parent.iterdir()) + 200_000

    def no_more_than_that() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))

    async with serving(config, config.parent / "serve.log", prepare=no_more_than_that) as broker:
        async with wire.dial(broker.url) as worker:
            assert (await worker.handshake(who))["type"] == "welcome"
            granted, refused = [], None
            for number in range(400):
                answer = await worker.ask("lease", token=f"github/t{number}")
                if answer["type"] != "granted":
                    refused = answer
                    break
                granted.append(answer["lease"])
            assert refused is not None
            assert (refused["code"], refused["retry_after_s"] > 0) == ("unavailable", True)
            assert broker.running
            assert (await worker.ask("lease", token="gitlab/x"))["code"] == "denied"
            _, hard = resource.prlimit(broker.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(broker.pid, resource.RLIMIT_FSIZE, (hard, hard))
            again = await worker.ask("lease", token="github/t399")
            assert again["type"] == "granted", again
        assert await broker.stop() == 0
    async with open_house() as house:
        live = {row.lease for row in await house.leases() if row.state == "live"}
        assert {*granted, again["lease"]} <= live
        assert (await house.verified()).problems == []


def _token(number: int) -> Any:
    from broker.admin.asked import NewVersion

    return NewVersion(token=f"github/t{number}", value=b"s3cret")
