"""HashiCorp Vault's and OpenBao's transit engine as a KMS, over HTTP and without an SDK.

`open_transit` is the adapter. How to set a server up: docs/howto/transit.md. Format: docs/spec/kms-transit.md.
"""

from kms.transit.adapter import TransitKms, open_transit

__all__ = ["TransitKms", "open_transit"]
