"""Decide whether a worker may lease a token at an instant: pure functions over grant records.

Nothing here does I/O or reads a clock. How a grant is stored is in `storage.records.grants`; how a decision becomes a
lease is in `broker.leases`; which admin may make a grant is in `broker.api`.

names       what tokens, workers, groups, admins and keyrings may be called, and grant subjects
labels      how many labels a thing may carry, and what they may say
patterns    which tokens a grant names
terms       what a grant may allow, checked when it is made
book        every grant, by subject, and one worker's entitlements
entitlements  the decision itself
explain     the decision in words, for people
"""
