"""What storage can refuse, as one tree.

    StorageError
    ├── Conflict        a compare-and-set lost, or a key exists already
    ├── Unavailable     cannot serve now; the same call may succeed later
    │   └── StorageFull the disk (or quota) is full
    ├── Refused         this database must not be used as it is
    │   ├── NotOurs         not a tokenbroker database
    │   ├── NewerSchema     written by a newer release
    │   ├── Damaged         the file is corrupt
    │   ├── Unfinished      a copy into it was cut short
    │   └── Unreachable     cannot be opened at all (path, permissions, address)
    └── OutOfBounds     the caller asked for more than a bound allows

A class docstring is the default message; `args[0]` may say it more precisely.
"""

from __future__ import annotations


class StorageError(Exception):
    """Storage refused the call."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class Conflict(StorageError):
    """The record changed since it was read, or its key exists already; read again and retry."""


class Unavailable(StorageError):
    """Storage cannot serve now; the same call may succeed later."""


class StorageFull(Unavailable):
    """The disk that holds the database is full; free space, then retry."""


class Refused(StorageError):
    """This database must not be used as it is."""


class NotOurs(Refused):
    """The database was not made by tokenbroker; name another one in storage.url."""


class NewerSchema(Refused):
    """The database was written by a newer tokenbroker; run that release, or restore a backup."""


class Damaged(Refused):
    """The database is damaged; restore the newest backup."""


class Unfinished(Refused):
    """A migration or restore into this database has not finished; run it again, or name another database."""


class Unreachable(Refused):
    """The database cannot be opened; check storage.url, the folder and its permissions."""


class OutOfBounds(StorageError):
    """The call is larger than the storage port allows."""
