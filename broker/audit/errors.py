"""What the audit log can refuse, and the one table from storage's errors to the broker's.

The journal is the only writer, so every storage error of a write passes through here exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.errors import BadRequest, BrokerError, Conflict, Tampered, Unavailable
from storage import errors as storage_errors


class NoteBroken(Tampered):
    """A signed note is malformed, or the expected key did not sign it."""


class ProofBroken(Tampered):
    """A Merkle proof does not lead to the signed root."""


class EntryBroken(Tampered):
    """An audit entry is not the canonical encoding of a known fact."""


class LogBroken(Tampered):
    """A stored audit log is not what was written; compare it with a backup and with the anchored checkpoints."""


_TABLE: tuple[tuple[type[storage_errors.StorageError], type[BrokerError]], ...] = (
    (storage_errors.Conflict, Conflict),
    (storage_errors.OutOfBounds, BadRequest),
    (storage_errors.Unavailable, Unavailable),
    (storage_errors.Refused, Unavailable),
)


def translated(error: storage_errors.StorageError) -> BrokerError:
    """The broker's error for storage's, with the same message and storage's error as its cause."""
    for theirs, ours in _TABLE:
        if isinstance(error, theirs):
            answer: BrokerError = ours(str(error))
            break
    else:
        answer = BrokerError(str(error))
    answer.__cause__ = error
    return answer


@asynccontextmanager
async def outside(*, deadline_s: float) -> AsyncIterator[None]:
    """One call to storage with a deadline. Storage's errors come out translated, a missed deadline as Unavailable."""
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except TimeoutError:
        raise Unavailable(f"storage did not answer the audit log within {deadline_s:g} s; retry later") from None
    except storage_errors.StorageError as error:
        raise translated(error) from error
