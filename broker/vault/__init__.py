"""Seal token values and open them again; keep unwrapped data keys as long, and only as long, as their KMS agrees.

Rooms: encoding, chunked, envelope (pure) · root, data_keys, needs (what a key is) · gate, unwrapping, key_cache (asking
a KMS, and remembering its answers) · minting, seals (making keys, and how often they may be used) · vault (the one
door) · assembly (puts it together).
Which rows may be believed is decided by whoever gives the vault its records, not here. The format is specified in
docs/spec/envelope.md.
"""
