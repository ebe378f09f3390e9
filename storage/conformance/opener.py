"""What a law needs of an adapter: a way to open another handle on the same database."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from storage.port import Storage

Opener = Callable[[], AbstractAsyncContextManager[Storage]]
"""Each call opens one more handle on one database, which is empty at first and outlives the handles."""
