"""URIs of local keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from kms.errors import BadKey
from kms.local import create_key_file, open_local
from kms.local.uri import parse_uri


def test_a_uri_names_all_its_files() -> None:
    """Path, passphrase file and policy are read from the URI, which is kept as it was."""
    uri = "local:/keys/kms.key?passphrase-file=/keys/phrase&policy=/keys/policy.toml"
    where = parse_uri(uri)
    assert where.uri == uri
    assert where.key_file == Path("/keys/kms.key")
    assert where.passphrase_file == Path("/keys/phrase")
    assert where.policy_file == Path("/keys/policy.toml")
    assert where.passphrase_env is None


def test_percent_encoding_is_undone_once() -> None:
    """A question mark, an ampersand or a percent sign in a path is written as its code; a plus is a plus."""
    where = parse_uri("local:/a%3Fb%26c%2525+d?passphrase-env=A%5FB&policy=/p%20q")
    assert where.key_file == Path("/a?b&c%25+d")
    assert where.passphrase_env == "A_B"
    assert where.policy_file == Path("/p q")


async def test_a_relative_path_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path means the working directory at the time of opening, whatever it is later."""
    create_key_file(tmp_path / "kms.key")
    monkeypatch.chdir(tmp_path)
    async with open_local("local:kms.key") as kms:
        monkeypatch.chdir("/")
        await kms.check()


@pytest.mark.parametrize(
    "uri",
    [
        "local:",
        "local:?policy=/p",
        "file:/x",
        "/x",
        "",
        "local:/x?",
        "local:/x?policy",
        "local:/x?policy=",
        "local:/x?policy=/a&policy=/b",
        "local:/x?passphrase-file=/a&passphrase-env=B",
        "local:/x?passphrase=canary",
        "local:/x?Policy=/p",
        "local:/x?policy=/a&",
        "local:/x%00y",
        "local:/x?passphrase-env=A%00",
    ],
)
async def test_a_wrong_uri_is_a_bad_key_and_shows_no_option_value(uri: str) -> None:
    """Whatever is wrong with it; a passphrase that was put into it by mistake is not repeated."""
    if uri == "local:/x?":
        # An empty query is none, so that it is the missing file which is refused.
        assert parse_uri(uri).key_file == Path("/x")
    with pytest.raises(BadKey) as caught:
        async with open_local(uri):
            pass
    assert "canary" not in str(caught.value)
