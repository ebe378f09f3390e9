"""Decide who gets which token, and prove it afterwards.

Rooms, from the bottom: errors, clock, secret, ids → policy, vault, authority, audit → leases and the admin services →
session, api, cli. Imports point down that list only. `app.py` is the one place that wires.
"""
