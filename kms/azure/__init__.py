"""Azure Key Vault and Managed HSM as a KMS: one key, which the service itself wraps and unwraps with.

How to get one: docs/howto/azure-key-vault.md. Absolute imports of `azure` in this package mean Microsoft's SDK.
"""

from kms.azure.adapter import AzureKms, open_azure

__all__ = ["AzureKms", "open_azure"]
