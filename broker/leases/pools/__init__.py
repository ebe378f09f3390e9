"""Pools: which member's value a lease gets, who is next for a place, and what a worker's report says of a member.

Making and changing pools is `broker.admin.pools`'s.
"""
