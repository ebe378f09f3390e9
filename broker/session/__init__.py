"""Speak the wire protocol: prove who connects, carry frames, and let go in order.

`handshake` is the protocol's first half without I/O, `session` a connected worker, `door` the aiohttp shell around
both, `sessions` all connections of this replica. What a request means is decided in `broker.leases`.
"""
