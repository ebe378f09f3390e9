"""Grant, renew, release, resume, rotate, revoke and expire: the life of a lease, in batches.

`desk` is the hot path: what arrives together is decided together, committed together and answered together. Each
operation is one file with one class. Tokens whose values are those of others are in `pools`; those whose values are
made for each lease, in `issued`. Frames are encoded here; sockets live in `broker.session`; who may have what is
`broker.policy`'s to say.
"""
