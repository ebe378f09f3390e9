"""The table of all operations. Each row is written beside its handler; here they stand together, in order of matching.

Who may do what is in the rows' `roles`; docs/reference/api.md shows the whole matrix.
"""

from __future__ import annotations

from typing import Final

from broker.api.handlers import (
    access,
    admins,
    audit,
    enrolments,
    grants,
    issuers,
    keys,
    leases,
    operations,
    pools,
    rollouts,
    rotations,
    tokens,
    workers,
)
from broker.api.route import AnyRoute

ROUTES: Final[tuple[AnyRoute, ...]] = (
    *tokens.ROUTES,
    *workers.ROUTES,
    *enrolments.ROUTES,
    *access.ROUTES,
    *grants.ROUTES,
    *pools.ROUTES,
    *rollouts.ROUTES,
    *rotations.ROUTES,
    *issuers.ROUTES,
    *leases.ROUTES,
    *keys.ROUTES,
    *admins.ROUTES,
    *audit.ROUTES,
    *operations.ROUTES,
)
