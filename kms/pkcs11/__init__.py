"""The PKCS#11 KMS: a key in an HSM, or in whatever else speaks PKCS#11 (docs/howto/pkcs11.md).

Inside this package `import pkcs11` means the library python-pkcs11, for imports are absolute.
"""

from kms.pkcs11.adapter import open_pkcs11

__all__ = ["open_pkcs11"]
