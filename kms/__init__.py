"""Wrap keys, and nothing else.

`port` is the contract, `catalog` finds adapters by key URI, `conformance` holds the laws every adapter passes.
What is wrapped here are 32-byte keys, never token values; nothing here imports `broker` or `storage`.
"""
