"""A broker takes as many open files as the system lets it have."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any


async def test_the_soft_limit_of_open_files_is_raised(serving: Any, config: Path) -> None:
    """Each connection is an open file, so the limit that a shell or an init system gives by default is not kept."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2048))

    async with serving(config, config.parent / "serve.log", prepare=few) as broker:
        limits = Path(f"/proc/{broker.pid}/limits").read_text()
        (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
        assert line.split()[3:5] == ["2048", "2048"]
