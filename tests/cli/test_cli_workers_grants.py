"""`worker` and `grant`: who may connect, who may have what, and the explanation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from tokenbroker_client import WorkerKey


def test_a_public_key_is_taken_as_text_and_from_files(house: Any, tmp_path: Path) -> None:
    """The text that keygen prints, a file with it, and a PEM public key register the same key."""
    key = WorkerKey.generate()
    key.save(tmp_path / "key")
    pem = load_pem_private_key((tmp_path / "key").read_bytes(), None).public_key()
    (tmp_path / "text.pub").write_text(f"{key.public_key_b64}\n")
    (tmp_path / "pem.pub").write_bytes(pem.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for number, given in enumerate((key.public_key_b64, tmp_path / "text.pub", tmp_path / "pem.pub")):
        name = f"keyed-{number}"
        worker = house.shell.json("worker", "register", name, "--public-key", given, "--group", "a", "--group", "b")
        assert (worker["worker"], worker["groups"]) == (name, ["a", "b"])
        assert worker["keys"][0]["public_key"] == key.public_key_b64


def test_a_private_key_is_not_registered(house: Any, tmp_path: Path) -> None:
    """Somebody who names the private key file learns that it stays with the worker."""
    WorkerKey.generate().save(tmp_path / "key")
    assert "private key" in house.shell.refused("worker", "register", "p-1", "--public-key", tmp_path / "key")


@pytest.mark.parametrize("given", ["nonsense", "AAAA", "A" * 43])
def test_what_is_no_public_key_is_refused(house: Any, given: str) -> None:
    """Neither text nor file: one line; 32 zero bytes, a point of small order: refused by the broker."""
    assert "public key" in house.shell.refused("worker", "register", "n-1", "--public-key", given)


def test_a_worker_from_registration_to_removal(house: Any) -> None:
    """register, list, show, disable, enable, further keys and remove each say what is then."""
    first, second = WorkerKey.generate(), WorkerKey.generate()
    house.shell.ok(
        "worker", "register", "w-life", "--public-key", first.public_key_b64, "--expires", "2099-01-01T00:00:00+01:00"
    )
    assert house.shell.json("worker", "show", "w-life")["expires_at"] == "2098-12-31T23:00:00Z"
    assert "w-life" in [worker["worker"] for worker in house.shell.json("worker", "list")]
    assert house.shell.json("worker", "disable", "w-life")["disabled"] is True
    assert house.shell.json("worker", "enable", "w-life")["disabled"] is False
    keys = house.shell.json("worker", "add-key", "w-life", "--public-key", second.public_key_b64)["keys"]
    assert len(keys) == 2
    house.shell.ok("worker", "remove-key", "w-life", keys[0]["key_sha256"])
    assert second.public_key_b64 in house.shell.ok("worker", "show", "w-life").out
    house.shell.ok("worker", "remove", "w-life")
    assert "w-life" in house.shell.refused("worker", "show", "w-life")


def test_a_code_for_a_worker_that_exists_says_so(house: Any) -> None:
    """That it adds a key, and that groups which are named replace those that the worker has."""
    house.shell.ok(
        "worker", "register", "e-there", "--public-key", WorkerKey.generate().public_key_b64, "--group", "ci"
    )
    assert not house.shell.json("worker", "enroll", "e-new")["worker_exists"]
    ran = house.shell.ok("worker", "enroll", "e-there", "--group", "prod")
    assert "e-there exists already" in ran.err
    assert "the groups prod instead of its own" in ran.err
    issued = house.shell.json("worker", "enroll", "e-there")
    assert (issued["worker_exists"], issued["replaces_groups"]) == (True, False)


def test_a_withdrawn_code_is_worth_nothing(house: Any) -> None:
    """It is listed while it is open, and then no more; withdrawing it again is refused."""
    issued = house.shell.json("worker", "enroll", "e-gone")
    listed = house.shell.json("enrolment", "list")
    assert issued["enrolment"] in [code["enrolment"] for code in listed]
    assert issued["code"] not in house.shell.ok("enrolment", "list").out
    house.shell.ok("enrolment", "withdraw", issued["enrolment"])
    everything = house.shell.json("enrolment", "list", "--all")
    assert issued["enrolment"] not in [code["enrolment"] for code in everything]
    assert "no open code" in house.shell.refused("enrolment", "withdraw", issued["enrolment"])


def test_enroll_prints_a_code_and_nothing_else(house: Any) -> None:
    """Standard output is the one-time code, so that it can go to a file; what it is for is on standard error."""
    ran = house.shell.ok("worker", "enroll", "e-1", "--group", "ci")
    assert ran.out.startswith("tbe_")
    assert len(ran.out.split()) == 1
    assert "e-1" in ran.err
    issued = house.shell.json("worker", "enroll", "e-1")
    assert {"code", "worker", "expires_at"} <= set(issued)


def test_a_grant_is_added_explained_and_removed(house: Any) -> None:
    """`grant test` names the grant that allows it, and says why none does once it is gone."""
    key = WorkerKey.generate()
    house.shell.ok("worker", "register", "g-1", "--public-key", key.public_key_b64, "--group", "granted")
    grant = house.shell.json("grant", "add", "group:granted", "g/*", "--ttl", "90s", "--max-ttl", "2h")
    assert (grant["subject"], grant["pattern"], grant["ttl_s"], grant["max_ttl_s"]) == (
        "group:granted",
        "g/*",
        90,
        7200,
    )
    told = house.shell.json("grant", "test", "worker:g-1", "g/token")
    assert (told["allowed"], told["grant"]) == (True, grant["grant"])
    assert grant["grant"] in house.shell.ok("grant", "list", "--subject", "group:granted").out
    house.shell.ok("grant", "remove", grant["grant"])
    refused = house.shell.json("grant", "test", "worker:g-1", "g/token")
    assert (refused["allowed"], refused["grant"]) == (False, None)
    assert refused["lines"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("worker:x", "a/*", "--ttl", "soon"), 2),
        (("worker:x", "a/*", "--ttl", "1.5s"), 2),
        (("worker:x", "a/*", "--expires", "tomorrow"), 2),
        (("worker:x", "a/*", "--expires", "2099-01-01T00:00:00"), 2),
        (("somebody", "a/*"), 1),
        (("worker:x", "A B"), 1),
        (("worker:x", "a/*", "--ttl", "2h", "--max-ttl", "1h"), 1),
        (("worker:x", "a/*", "--expires", "2001-01-01T00:00:00Z"), 1),
        (("worker:x", "a/*", "--source", "everywhere"), 1),
    ],
)
def test_a_grant_out_of_bounds_is_refused(house: Any, arguments: tuple[str, ...], code: int) -> None:
    """What cannot be read is a usage error, what the broker refuses is a failure; both name it in the end."""
    ran = house.shell.run("grant", "add", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert "Traceback" not in ran.err


def test_a_grant_says_whether_it_allows_the_previous_version(house: Any) -> None:
    """Only with --previous; `grant test --previous` explains a refusal by it."""
    house.shell.ok("worker", "register", "verifier", "--public-key", WorkerKey.generate().public_key_b64)
    one = house.shell.json("grant", "add", "worker:verifier", "both/now")
    two = house.shell.json("grant", "add", "worker:verifier", "both/**", "--previous")
    assert (one["previous"], two["previous"]) == (False, True)
    told = house.shell.json("grant", "test", "worker:verifier", "both/now", "--previous")
    assert (told["allowed"], told["grant"]) == (True, two["grant"])
    house.shell.ok("grant", "remove", two["grant"])
    refused = house.shell.json("grant", "test", "worker:verifier", "both/now", "--previous")
    assert (refused["allowed"], refused["refusal"]) == (False, "previous")
    assert "allows the current version only" in refused["lines"][0]
