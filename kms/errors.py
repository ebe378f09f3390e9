"""What a KMS can answer instead of a key, as one tree of three classes that callers act upon.

    KmsError            carries kms_key (the key URI) and code
    ├── Unavailable     no answer, or "try later": what is cached may serve on
    ├── Denied          it said no, or something unknown: evict and fail closed
    │   └── Disabled        the key is disabled, pending deletion, or gone
    ├── Corrupt         it answered, but this blob is not that key's, or was changed
    └── BadKey          the key URI or key file itself is wrong; nothing was asked

A class docstring is the default message; `args[0]` may say it more precisely, and never holds key material.
"""

from __future__ import annotations

from typing import ClassVar


class KmsError(Exception):
    """The KMS did not give a key."""

    code: ClassVar[str] = "kms_error"

    def __init__(self, message: str | None = None, *, kms_key: str = "") -> None:
        text = message or (self.__doc__ or "").strip()
        super().__init__(f"{kms_key}: {text}" if kms_key else text)
        self.kms_key = kms_key


class Unavailable(KmsError):
    """The KMS does not answer now; the same call may succeed later."""

    code = "kms_unavailable"


class Denied(KmsError):
    """The KMS refuses this caller, this context or this key; check its policy."""

    code = "kms_denied"


class Disabled(Denied):
    """The KMS key is disabled or gone; enable it, or take another key of the keyring."""

    code = "kms_disabled"


class Corrupt(KmsError):
    """The KMS cannot open this blob: it was changed, or belongs to another key or context."""

    code = "kms_corrupt"


class BadKey(KmsError):
    """The KMS key cannot be used as configured; check its URI, file and permissions."""

    code = "kms_bad_key"
