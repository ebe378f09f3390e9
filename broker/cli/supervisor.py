"""Tell the supervisor how the process stands, if it asked: the protocol of sd_notify(3), without its library.

systemd asks with `Type=notify`. A restart then returns when the broker serves, and fails when it refuses to start.
"""

from __future__ import annotations

import os
import socket
from enum import Enum
from typing import Final

import structlog

ADDRESS: Final = "NOTIFY_SOCKET"
"""The variable that names the supervisor's socket: a path, or @NAME in the abstract namespace."""

log = structlog.get_logger()


class Standing(Enum):
    """What is told."""

    READY = b"READY=1"
    STOPPING = b"STOPPING=1"


def tell_supervisor(standing: Standing) -> None:
    """Send it, if anybody asked. Never waits, never fails: a broker serves on though its supervisor does not listen."""
    address = os.environ.get(ADDRESS, "")
    if not address:
        return
    place = f"\0{address[1:]}" if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            told.setblocking(False)
            told.sendto(standing.value, place)
    except OSError as error:
        log.warning("supervisor_not_told", standing=standing.value.decode(), error=str(error))
