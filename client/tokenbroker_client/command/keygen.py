"""`tokenbroker-worker keygen`."""

from __future__ import annotations

import argparse
import re

from tokenbroker_client.command.output import tell, tell_json
from tokenbroker_client.errors import BadRequest
from tokenbroker_client.keys import WorkerKey
from tokenbroker_client.wire import WORKER_NAME_PATTERN


async def run(options: argparse.Namespace) -> int:
    """Make a key, write it, print the public half. Raises BadKey when the file exists already."""
    worker: str | None = options.worker
    if worker is not None and not re.match(WORKER_NAME_PATTERN, worker):
        raise BadRequest(f"{worker!r} is no worker name ([a-z0-9][a-z0-9._-]{{0,62}})")
    key = WorkerKey.generate(worker=worker)
    key.save(options.out)
    if options.json:
        tell_json({"public_key": key.public_key_b64, "key_file": options.out, "worker": worker})
    else:
        tell(key.public_key_b64)
    return 0
