"""The reference of the API for people, made from the route table: docs/reference/api.md."""

from __future__ import annotations

from collections.abc import Iterable

from broker.admin.roles import Role
from broker.api.problems import TABLE
from broker.api.route import AnyRoute
from broker.api.routes import ROUTES
from broker.errors import BrokerError

_HEAD = """# Admin API

The whole of it, with types, is at `/openapi.json`. Send a credential as `Authorization: Bearer tba_…`.

- A token's name stands in a path with its slashes, plain or as `%2F`; `/-/` ends it, as no segment may be called `-`.
- Lists take `limit` (1 to 1000) and `cursor`; `next` is the cursor of the following page, null on the last one.
- Where If-Match is marked, a change may name the revision (`etag`) it was decided on; another one is refused with 412.
- Where Key is marked, `Idempotency-Key` makes repeating harmless for 24 hours. What had a secret in its answer is
  answered with 409 `shown_once`.
- Every refusal is a problem document (RFC 9457): `type`, `title`, `status`, `detail`, `code`, and `retry_after_s`
  where waiting helps.
- Bodies are JSON of at most 1 MiB; unknown fields are refused. Every answer says `Cache-Control: no-store`.
- `/healthz`, `/readyz`, `/metrics` and `/openapi.json` need no credential.
"""


def api_reference() -> str:
    """The reference as Markdown: operations with the roles that may use them, then the refusals."""
    return "\n".join([_HEAD, *_operations(ROUTES), "", *_refusals(), ""])


def _operations(routes: Iterable[AnyRoute]) -> Iterable[str]:
    roles = list(Role)
    yield "## Operations"
    yield ""
    yield f"| operation | request | {' | '.join(roles)} | If-Match | Key | does |"
    yield f"|---|---|{'---|' * (len(roles) + 3)}"
    for route in routes:
        may = ["anybody" if route.roles is None else "yes" if role in route.roles else "" for role in roles]
        marks = ["yes" if route.conditional else "", "yes" if route.creates else ""]
        cells = [route.operation, f"`{route.method} {route.path}`", *may, *marks, route.summary]
        yield f"| {' | '.join(cells)} |"


def _refusals() -> Iterable[str]:
    yield "## Refusals"
    yield ""
    yield "| code | status | means |"
    yield "|---|---|---|"
    rows = {(kind.code, row.status): _meaning(kind) for kind, row in TABLE.items()}
    for (code, status), meaning in sorted(rows.items(), key=lambda item: (item[0][1], item[0][0])):
        yield f"| `{code}` | {status} | {meaning} |"


def _meaning(kind: type[BrokerError]) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n", maxsplit=1)[0].split())
