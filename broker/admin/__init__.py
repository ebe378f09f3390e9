"""Administer the broker: tokens, workers, enrolments, grants, admins, keys.

Each service decides one kind of durable change and makes it, with its audit entry, in one commit. How an operator's
request arrives, who may make it and what an answer looks like is in `broker.api`; deadlines are the caller's.
"""
