"""Runs commands in forks of one process that has imported them: a test pays for its commands, not for imports.

    python forking.py FD

Each fork is a process with its own arguments, environment and standard streams, and runs the real `main`. Orders come
and results go as JSON lines over the socket FD. No test imports this.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from importlib import import_module

from broker.cli.main import Commands, main

LONGEST_S = 60


def run(order: dict[str, object]) -> int:
    """Be the command: never returns to the caller's loop."""
    for descriptor, name, flags in (
        (0, "stdin", os.O_RDONLY),
        (1, "stdout", os.O_WRONLY),
        (2, "stderr", os.O_WRONLY),
    ):
        opened = os.open(str(order[name]), flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(order["environment"])  # type: ignore[call-overload]  # a mapping of texts, made by the test
    sys.argv = ["tokenbroker", *order["arguments"]]  # type: ignore[misc]  # a list of texts, likewise
    sys.stdin = os.fdopen(0, "r")
    signal.alarm(LONGEST_S)
    code = 0
    try:
        main()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 0 if ending.code is None else 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def serve(descriptor: int) -> None:
    """Carry out orders, one after the other, until the socket closes."""
    for name in Commands.says:
        import_module(f"{Commands.package}.{name}")
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rw") as orders:
        for line in orders:
            child = os.fork()
            if child == 0:
                os._exit(run(json.loads(line)))
            _, status = os.waitpid(child, 0)
            orders.write(json.dumps(os.waitstatus_to_exitcode(status)) + "\n")
            orders.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
