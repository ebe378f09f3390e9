"""`tokenbroker-worker`: keygen, enroll, lease, exec.

Exit codes: 0 done, 1 refused or failed, 2 usage; `exec` ends as its command does. Facts go to standard output, messages
to standard error. No secret is ever an argument.
"""

from __future__ import annotations

from tokenbroker_client.command.main import main

__all__ = ["main"]
