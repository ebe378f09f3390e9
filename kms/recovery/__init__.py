"""A KMS key whose private half is on paper: it wraps every day, and opens on the day when all others are lost.

`open_recovery` is the adapter. Formats: docs/spec/kms-recovery.md; the way back: docs/howto/break-glass.md.
"""

from kms.recovery.adapter import RecoveryKms, open_recovery

__all__ = ["RecoveryKms", "open_recovery"]
