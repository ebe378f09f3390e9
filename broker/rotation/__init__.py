"""Changing a token's value while workers use it: rollouts to a share of them at a time, and rotation by itself.

Which version a worker gets at an instant is decided in `broker.leases`; here is decided when that changes. What is done
at the service that the token is for is in `broker.upstream`.
"""
