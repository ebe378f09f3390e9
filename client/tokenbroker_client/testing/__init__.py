"""A broker for apps' own tests: in this process, on a free port of loopback, without storage or keys to set up.

    async with FakeBroker() as fake:
        fake.put("github/ci", "v1")
        async with connect(fake.url, key=fake.worker_key("ci-1")) as broker: ...

It speaks the wire protocol over real sockets. It is no broker to run: it holds values in the clear and keeps no record.
"""

from __future__ import annotations

from tokenbroker_client.testing.fake_broker import FakeBroker
from tokenbroker_client.testing.fake_state import FakeLease, SeenAck, SeenReport
from tokenbroker_client.testing.hand_clock import HandClock

__all__ = ["FakeBroker", "FakeLease", "HandClock", "SeenAck", "SeenReport"]
