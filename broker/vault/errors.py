"""What can keep a sealed value shut, as narrow errors under the broker's tree.

    Tampered
    ├── SealBroken         the sealed bytes are not what was sealed for this row
    └── KeyCorrupt         the data key's wraps open to something else, or to nothing
    Unavailable
    ├── KeyUnavailable     no KMS answers, and no key may be served from memory
    ├── KeyDenied          a KMS refuses the data key to the broker, whoever asks
    └── ReservationNeeded  no seal is set aside for this data key
    Denied
    └── CallerDenied       a KMS refuses the data key to this worker

Messages name keyring and data key. The KMS key is an attribute only: workers need not learn where keys are kept.
"""

from __future__ import annotations

from broker.errors import Denied, Tampered, Unavailable


class AboutKey:
    """Facts for the audit log and operators, on every error about a data key. reason: a stable word."""

    data_key: str = ""
    kms_key: str = ""
    reason: str = ""


class SealBroken(Tampered):
    """The sealed value does not open as what its row says; restore the row from a backup and read the audit log."""


class KeyCorrupt(AboutKey, Tampered):
    """The data key does not open as what its row says; restore the row from a backup and read the audit log."""


class KeyUnavailable(AboutKey, Unavailable):
    """The data key cannot be unwrapped now; retry later."""


class KeyDenied(AboutKey, Unavailable):
    """The KMS refuses the data key to the broker; the operator has to allow it again, or name another KMS key."""


class CallerDenied(AboutKey, Denied):
    """The KMS refuses the data key to this worker; its policy decides, not the broker's grants."""


class ReservationNeeded(AboutKey, Unavailable):
    """No seal is set aside for this data key; reserve a block of them and seal again."""
