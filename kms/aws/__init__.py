"""AWS KMS: one symmetric key for each URI, asked with encryption context and an explicit key ARN through aiobotocore.

`open_aws` is the adapter. How a context is sent: docs/spec/kms-aws.md.
"""

from kms.aws.adapter import open_aws

__all__ = ["open_aws"]
