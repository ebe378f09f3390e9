"""The admin API over HTTP: `/v1`, probes, metrics and the OpenAPI document, all from one table of routes.

`routes` is that table, `dispatch` does for every request what all have in common, `handlers` translate between HTTP and
the services of `broker.admin`, which decide. Workers' WebSocket, TLS and listening are elsewhere.
"""
