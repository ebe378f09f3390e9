"""The one place where asyncpg's errors become the port's. Nothing else in the adapter looks at an SQLSTATE."""

from __future__ import annotations

import ssl

import asyncpg

from storage.errors import (
    Conflict,
    Damaged,
    OutOfBounds,
    Refused,
    StorageError,
    StorageFull,
    Unavailable,
    Unreachable,
)

LOST = "TB001"
"""Raised by the schema's function `settled`."""
READ_ONLY = "25006"
"""A standby was asked to write, or a primary that steps down."""
AGAIN = frozenset({"40001", "40P01"})
"""Serialisation failure and deadlock: nothing was written, and the same statement may well succeed."""

_BY_STATE: tuple[tuple[str, type[StorageError], str], ...] = (
    (LOST, Conflict, "a record changed since it was read, or is gone; read again and retry"),
    ("23505", Conflict, "a key exists already"),
    ("22", OutOfBounds, "a column cannot hold a value"),
    ("23", OutOfBounds, "a column cannot hold a value"),
    ("54", OutOfBounds, "a value is longer than PostgreSQL can hold"),
    ("53100", StorageFull, "the database's disk is full; free space, then retry"),
    (READ_ONLY, Unavailable, "the database is read-only: a standby, or a primary that steps down; retry"),
    ("28", Unreachable, "the database refuses this user; check storage.url, the password and pg_hba.conf"),
    ("3D000", Unreachable, "there is no such database; create it, or correct storage.url"),
    ("42501", Refused, "the database role may not do this; who may do what is in config/postgres/roles.sql"),
    ("42", Damaged, "a table or column is missing or of another kind; restore the newest backup"),
    ("3F", Damaged, "the schema tokenbroker is missing; restore the newest backup"),
    ("XX001", Damaged, "the database reports damaged data; restore the newest backup"),
    ("XX002", Damaged, "the database reports a damaged index; rebuild it with REINDEX"),
)
"""By the beginning of the SQLSTATE, the more exact first. Whatever is not here may pass: Unavailable."""


def from_postgres(error: Exception, *, unknown: str = "") -> StorageError:
    """What this error means to a caller of the port. unknown: what to add where the answer itself went missing."""
    if isinstance(error, StorageError):
        return error
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        for beginning, kind, message in _BY_STATE:
            if state.startswith(beginning):
                return kind(f"{message} (SQLSTATE {state})")
        return Unavailable(f"the database cannot serve (SQLSTATE {state}); the same call may succeed later{unknown}")
    if isinstance(error, OSError) and "SSL" in str(error):
        return _from_tls(error)
    if isinstance(error, (asyncpg.DataError, OverflowError, UnicodeEncodeError, TypeError, ValueError)):
        # An integer over 64 bits, text with a lone surrogate, another type. The value is not repeated.
        return OutOfBounds(f"a column cannot hold a value ({type(error).__name__})")
    return Unavailable(
        f"the database does not answer ({type(error).__name__}); the same call may succeed later{unknown}"
    )


def _from_tls(error: OSError) -> StorageError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unreachable(f"the database's certificate is not trusted: {error.verify_message}; check sslrootcert")
    if isinstance(error, ConnectionError):  # asyncpg's own, for a server that answers a request for TLS with a no
        return Unreachable("the server speaks no TLS; switch it on there (ssl = on)")
    return Unavailable(f"TLS with the database failed ({type(error).__name__}); the same call may succeed later")
