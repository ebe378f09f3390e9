"""What becomes of an exception that nobody foresaw: logged whole, told by reference, the end of one operation only."""

from __future__ import annotations

import structlog

from broker.errors import BrokerError, Unavailable
from broker.ids import random_id
from storage.errors import StorageError

log = structlog.get_logger()


def told(error: Exception) -> BrokerError:
    """The error as those are told it who wait for what could not be read or made."""
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, TimeoutError):
        return Unavailable("storage did not answer in time")
    return Unavailable(str(error)) if isinstance(error, StorageError) else bug(error)


def bug(error: Exception) -> BrokerError:
    """Our bug, logged under a reference that the answer names. The traceback stays in the log."""
    reference = random_id()
    log.error("lease_operation_failed", reference=reference, exc_info=error)
    return BrokerError(f"internal error; the broker's log has it under {reference}")
