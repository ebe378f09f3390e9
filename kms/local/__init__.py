"""A KMS in a file: for development, tests, and an installation on one machine. It is not an HSM, and says so.

`open_local` is the adapter; the other functions make and change key files. Formats: docs/spec/kms-local.md.
"""

from kms.local.adapter import LocalKms, open_local
from kms.local.document import State
from kms.local.key_file import add_version, create_key_file, set_state

__all__ = ["LocalKms", "State", "add_version", "create_key_file", "open_local", "set_state"]
