"""Makes errors say which key they are about. What went wrong is said where it was noticed, not here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from kms.errors import KmsError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}:", re.ASCII)


@contextmanager
def naming(uri: str) -> Iterator[None]:
    """Within this block, a KmsError that names no key leaves as the same error, naming `uri`; its cause is kept."""
    try:
        yield
    except KmsError as error:
        if error.kms_key:
            raise
        raise type(error)(str(error), kms_key=uri) from error.__cause__


def unread(uri: str) -> str:
    """What stands for a URI that is not understood yet: its scheme, for a secret may be misplaced anywhere else."""
    scheme = _SCHEME.match(uri)
    return f"{scheme[0]}…" if scheme else "…"
