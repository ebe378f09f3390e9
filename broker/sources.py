"""Under which name a peer is counted, so that a customer with many addresses counts as one."""

from __future__ import annotations

import ipaddress


def source_key(address: str) -> str:
    """Under which key an address is counted: an IPv6 network of 64 bits is one source, as one customer gets one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))
    return str(parsed)
