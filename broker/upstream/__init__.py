"""The services that tokens are for, as far as the broker acts on them: rotators change a value there, issuers make one.

Adapters announce themselves as entry points (`catalog`); what they must do is in `port`, and `conformance` tests it.
When anything is rotated or issued is decided in `broker.rotation` and `broker.leases`, never here.
"""
