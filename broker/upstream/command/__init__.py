"""The rotator `command`: a program of the operator's, run once for each step. docs/howto/rotate-automatically.md."""

from __future__ import annotations

from broker.upstream.command.rotator import open_command

__all__ = ["open_command"]
