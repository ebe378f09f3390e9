"""What a `postgresql:` URL may say, and what is refused before anything is connected."""

from __future__ import annotations

import ssl

import pytest

from storage.errors import Unreachable
from storage.postgres.address import parse_address


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://tb@127.0.0.1/tb",
        "postgres://tb@localhost:5433/tb?pool_max=4",
        "postgresql://tb@[::1]/tb",
        "postgresql://tb@/tb?host=/run/postgresql",
    ],
)
def test_this_machine_needs_no_tls(url: str) -> None:
    """Loopback addresses and sockets are spoken to in the clear."""
    assert parse_address(url, statement_s=1).arguments["ssl"] is False


@pytest.mark.parametrize(
    "url", ["postgresql://tb@db1/tb", "postgresql://tb@127.0.0.1,db2:5432/tb", "postgresql://tb@10.0.0.1/tb"]
)
def test_other_machines_are_verified(url: str) -> None:
    """Off the machine, or with one host off it, the name and the certificate of the server are checked."""
    context = parse_address(url, statement_s=1).arguments["ssl"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_name_may_go_unverified_and_a_certificate_may_not() -> None:
    """`verify-ca` leaves the name out and keeps the rest."""
    context = parse_address("postgresql://tb@db1/tb?sslmode=verify-ca", statement_s=1).arguments["ssl"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not context.check_hostname


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://tb@db1/tb", "must read like"),
        ("postgresql://tb@db1/tb#x", "must read like"),
        ("postgresql://tb@db1", "names no database"),
        ("postgresql://tb@db1/", "names no database"),
        ("postgresql://tb@db1/tb?sslmode=disable", "sslmode=disable"),
        ("postgresql://tb@db1/tb?sslmode=require", "sslmode=require"),
        ("postgresql://tb@db1/tb?sslmode=prefer", "sslmode=prefer"),
        ("postgresql://tb@db1/tb?sslrootcert=/no/such/file", "/no/such/file"),
        ("postgresql://tb@db1/tb?statement_timeout=0", "statement_timeout"),
        ("postgresql://tb@db1/tb?pool_max=1", "pool_max"),
        ("postgresql://tb@db1/tb?pool_max=4&pool_max=5", "repeated"),
        ("postgresql://tb@db1/tb?pgbouncer=yes", "pgbouncer is 0 or 1"),
        ("postgresql://tb@db1/tb?pgbouncer", "NAME=VALUE"),
        ("postgresql://tb@db1:x/tb", "a port is a number"),
        ("postgresql://tb@db1:70000/tb", "a port is a number"),
        ("postgresql:///tb?host=db1,db2&port=1,2,3", "one for each host"),
    ],
)
def test_what_cannot_be_meant_is_refused(url: str, says: str) -> None:
    """A URL with a mistake in it is Unreachable, and the message names the mistake."""
    with pytest.raises(Unreachable, match=says):
        parse_address(url, statement_s=1)


@pytest.mark.parametrize(
    ("url", "places"),
    [
        ("postgresql://tb@db1/tb", [("db1", 5432)]),
        ("postgresql://tb@db1,db2:5433/tb", [("db1", 5432), ("db2", 5433)]),
        ("postgresql://tb@[::1]:5433,[fe80::2]/tb", [("::1", 5433), ("fe80::2", 5432)]),
        ("postgresql://tb@/tb", [("/var/run/postgresql", 5432)]),
        ("postgresql:///tb?host=db1,db2&port=5433", [("db1", 5433), ("db2", 5433)]),
        ("postgresql:///tb?host=db1,db2&port=5433,5434", [("db1", 5433), ("db2", 5434)]),
        ("postgresql://tb@%2Frun%2Fpg/tb", [("/run/pg", 5432)]),
    ],
)
def test_hosts_and_ports_are_read_as_libpq_reads_them(url: str, places: list[tuple[str, int]]) -> None:
    """Several hosts, each with its port or all with one; none means the socket of this machine."""
    assert list(parse_address(url, statement_s=1).places) == places


def test_a_password_is_not_shown() -> None:
    """What is shown of an address, and its repr, leave the password out."""
    address = parse_address("postgresql://tb:canary-password@db1,db2/tb?sslmode=verify-ca", statement_s=1)
    assert "canary" not in address.shown + repr(address)
    assert "tb@db1,db2/tb" in address.shown


def test_pgbouncer_gets_neither_settings_nor_prepared_statements() -> None:
    """In transaction mode a connection is another one with each statement."""
    pooled = parse_address("postgresql://tb@127.0.0.1/tb?pgbouncer=1", statement_s=7).arguments
    straight = parse_address("postgresql://tb@127.0.0.1/tb", statement_s=7).arguments
    assert pooled["statement_cache_size"] == 0
    assert "statement_timeout" not in pooled["server_settings"]
    assert straight["server_settings"]["statement_timeout"] == "7000"
