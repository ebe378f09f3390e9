"""Where adapters may send credentials and values: to hosts that the configuration names, whatever a policy says.

Whoever may write a policy may not see values. Without this he would name a token as a credential, a server of his own
as the place to sign in at, and have it sent there; or reach every address of the broker's network.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from yarl import URL

from broker.upstream.errors import BadSettings
from broker.upstream.http import read_url

HOSTS: Final = "rotation.hosts"
WEBHOOKS: Final = "rotation.webhooks"
"""The lists of the configuration, as messages name them."""


def check_host(setting: str, host: str, port: int | None, *, allowed: Set[str], listed: str = HOSTS) -> None:
    """Return if `allowed` holds the host: as HOST, for any port, or as HOST:PORT. BadSettings: it does not.

    listed: the list of the configuration that `allowed` is.
    """
    named = {host, f"{host}:{port}", f"[{host}]:{port}"}
    if named.isdisjoint(allowed):
        raise BadSettings(
            f"the setting {setting} leads to {host[:200]}:{port}, which {listed} in the configuration does not allow; "
            "whoever operates the broker adds it there"
        )


def allowed_url(setting: str, text: str, *, allowed: Set[str], listed: str = HOSTS) -> URL:
    """As `read_url`, and that its host is allowed."""
    url = read_url(setting, text)
    check_host(setting, str(url.host), url.port, allowed=allowed, listed=listed)
    return url
