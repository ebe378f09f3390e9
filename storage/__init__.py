"""Remember sealed records, and nothing else.

`port` is the contract, `records` what is remembered, `catalog` finds adapters, `conformance` holds the laws
every adapter passes. No type here can hold a plaintext, nothing here reads a clock, and nothing here imports
`broker` or `kms`.
"""
