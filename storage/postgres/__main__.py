"""Make the schema, or bring it up to this release: `python -m storage.postgres URL`, as the role that owns it.

For installations whose brokers may not do so themselves; see docs/howto/postgresql.md.
"""

from __future__ import annotations

import asyncio
import sys

from storage.errors import StorageError
from storage.postgres.opening import migrate_postgres


def main(arguments: list[str]) -> str | None:
    """Why it failed, None if it did not."""
    if len(arguments) != 1:
        return "usage: python -m storage.postgres postgresql://tokenbroker_migrator@HOST/DATABASE"
    try:
        before, after = asyncio.run(migrate_postgres(arguments[0]))
    except StorageError as error:
        return str(error)
    print(f"schema {after}" + (" already" if before == after else f", before {before or 'none'}"))  # noqa: T201 - its output
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
