"""What an admin may be, and the sets of roles that operations name. Which operation wants which set: `broker.api`."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from broker.errors import BadRequest


class Role(StrEnum):
    """admin: everything. operator: tokens, workers, grants, leases, keys; no admins, no reading of values.
    auditor: the audit log and everything that says who may have what. reader: names and states, nothing else.
    """

    ADMIN = "admin"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    READER = "reader"


ADMINS: Final = frozenset({Role.ADMIN})
OPERATORS: Final = frozenset({Role.ADMIN, Role.OPERATOR})
AUDITORS: Final = frozenset({Role.ADMIN, Role.AUDITOR})
EVERYONE: Final = frozenset(Role)


def parse_roles(texts: Iterable[str]) -> tuple[str, ...]:
    """Accept 1 to 4 roles, sorted, none twice. BadRequest: none, or an unknown one."""
    roles = sorted(set(texts))
    known = [role.value for role in Role]
    unknown = [text for text in roles if text not in known]
    if unknown or not roles:
        raise BadRequest(f"roles: {len(unknown)} of those named are unknown, or none is named; choose among {known}")
    return tuple(roles)
