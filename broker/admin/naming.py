"""What else names a token, so that nobody deletes it under that."""

from __future__ import annotations

from broker.admin.errors import InUse
from broker.authority.authority import Authority


def check_unnamed(authority: Authority, token: str) -> None:
    """InUse: the token rotates by a policy, something signs in with its value, or it is in a pool or is one."""
    for issuer in authority.issuers:
        if token in issuer.credentials.values():
            raise InUse(f"token {token} is a credential of the issuer of {issuer.token}; change that issuer first")
    for pool in authority.pools:
        if pool.token == token:
            raise InUse(f"token {token} is a pool, or bounded; end that with `token pool delete` first")
        if token in pool.members:
            raise InUse(f"token {token} is a member of pool {pool.token}; `token pool remove-member` that first")
    for policy in authority.rotation_policies:
        if policy.token == token:
            raise InUse(f"token {token} is rotated by a policy; `rotation remove` that first")
        if token in policy.credentials.values() or token in policy.staging_credentials.values():
            raise InUse(f"token {token} is a credential of the rotation of {policy.token}; change that policy first")
