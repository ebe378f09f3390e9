"""What else names a token, so that nobody deletes it under that."""

from __future__ import annotations

from broker.admin.errors import InUse
from broker.authority.authority import Authority


def check_unnamed(authority: Authority, token: str) -> None:
    """InUse: the token rotates by a policy, or a policy signs in with its value."""
    for policy in authority.rotation_policies:
        if policy.token == token:
            raise InUse(f"token {token} is rotated by a policy; `rotation remove` that first")
        if token in policy.credentials.values() or token in policy.staging_credentials.values():
            raise InUse(f"token {token} is a credential of the rotation of {policy.token}; change that policy first")
