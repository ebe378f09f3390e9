"""AWS accounts: access keys of IAM users, and sessions of roles."""
