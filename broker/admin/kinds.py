"""Whether a token has versions of its own, which can be put, promoted and taken back."""

from __future__ import annotations

from broker.admin.errors import WrongKind
from broker.authority.authority import Authority
from storage.records import TokenRecord


def check_versioned(authority: Authority, token: TokenRecord) -> None:
    """WrongKind: its values are made for each lease, or are those of a pool's members.

    A token that is its own only member has its own.
    """
    if token.kind == "stored":
        return
    if token.kind == "issued":
        raise WrongKind(f"token {token.name} has an issuer that makes its values for each lease; it has no versions")
    pool = authority.pools.get((token.name,))
    if pool is None or pool.members != (token.name,):
        raise WrongKind(
            f"token {token.name} is a pool and has no value of its own; put or promote those of its members"
        )
