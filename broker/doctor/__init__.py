"""Look an installation over and say what to mend.

Nothing is written but storage's own self-check, and that only when no broker serves. `examining` asks everything in
order; `machine` and `files` look at what needs no database, `kms_keys` asks each KMS key.
"""
