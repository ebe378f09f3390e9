"""From command-line options to a connection."""

from __future__ import annotations

import argparse
import ssl
from contextlib import AbstractAsyncContextManager

from tokenbroker_client.broker import Broker, connect
from tokenbroker_client.errors import BadAddress


def tls_of(options: argparse.Namespace) -> ssl.SSLContext | None:
    """Return what to trust; None for the system's authorities. Raises BadAddress for a file that holds none."""
    if options.ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BadAddress(f"{options.ca_file} holds no certificate authority that can be read: {error}") from error


def connect_with(options: argparse.Namespace) -> AbstractAsyncContextManager[Broker]:
    """Connect as the worker that the options name."""
    return connect(
        options.url,
        key=options.key,
        worker=options.worker,
        tls=tls_of(options),
        insecure_plaintext=options.insecure_plaintext,
        connect_s=options.wait,
    )
