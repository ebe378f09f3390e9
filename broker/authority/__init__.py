"""Keep the rows that decide who gets what safe from an attacker who can write to the database.

`rowmac` makes each row unforgeable, `manifest` pins whole tables, `book` shows what was verified, `authority` is the
service: it loads, commits, follows the change feed and checks. Formats: docs/spec/authority.md. What is decided from
these rows (policy, sessions, keys) does not live here.
"""
