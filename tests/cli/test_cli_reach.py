"""Where commands find the broker and the credential, and what they refuse to send it to."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from broker.profile import read_profile
from broker.secret import Secret


@pytest.fixture
def profile(house: Any, tmp_path: Path) -> Path:
    """The shared broker's profile, copied."""
    shutil.copy(house.folder / "profile.toml", tmp_path / "profile.toml")
    return tmp_path / "profile.toml"


def _credential(profile: Path) -> str:
    secret: Secret = read_profile(profile).credential
    return secret.reveal().decode()


def test_every_way_to_a_credential_works(shell: Any, house: Any, profile: Path, tmp_path: Path) -> None:
    """--profile, --data-dir, their variables, the token's own variable, and the home's configuration folder."""
    at = ("token", "list", "--url", house.url)
    shell.ok(*at, "--profile", profile)
    shell.ok(*at, "--data-dir", house.folder)
    shell.with_environment(TOKENBROKER_PROFILE=str(profile)).ok(*at)
    shell.with_environment(TOKENBROKER_DATA_DIR=str(house.folder)).ok(*at)
    shell.with_environment(TOKENBROKER_ADMIN_TOKEN=_credential(profile)).ok(*at)
    (tmp_path / ".config" / "tokenbroker").mkdir(parents=True)
    shutil.copy(profile, tmp_path / ".config" / "tokenbroker" / "profile.toml")
    shell.with_environment(HOME=str(tmp_path)).ok(*at)


def test_the_url_comes_from_option_variable_or_profile(shell: Any, house: Any, profile: Path) -> None:
    """The option is stronger than the variable, and that than the profile."""
    nobody = "http://127.0.0.1:9"
    profile.write_text(f'url = "{house.url}"\ncredential = "{_credential(profile)}"\n')
    shell.ok("token", "list", "--profile", profile)
    shell.with_environment(TOKENBROKER_URL=nobody).ok("token", "list", "--profile", profile, "--url", house.url)
    there = shell.with_environment(TOKENBROKER_URL=nobody)
    assert nobody in there.refused("token", "list", "--profile", profile)


def test_a_profile_that_others_can_read_is_refused(shell: Any, house: Any, profile: Path) -> None:
    """A profile of mode 0644 is not used, and the line says how to close it."""
    profile.chmod(0o644)
    assert "chmod 600" in shell.refused("token", "list", "--url", house.url, "--profile", profile)


@pytest.mark.parametrize("text", ["", "no toml", "credential = 5", 'credential = "secret-canary"', 'what = "x"'])
def test_a_profile_that_is_none_is_named_and_never_quoted(shell: Any, profile: Path, text: str) -> None:
    """Whatever stands in it, the line names the file and quotes nothing."""
    profile.write_text(text)
    complaint = shell.refused("token", "list", "--profile", profile)
    assert str(profile) in complaint
    assert "canary" not in complaint


def test_without_a_credential_the_line_says_where_one_may_be(shell: Any) -> None:
    """The three places are named."""
    complaint = shell.refused("token", "list")
    assert all(each in complaint for each in ("--profile", "--data-dir", "TOKENBROKER_ADMIN_TOKEN"))


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1:8420", "ftp://127.0.0.1", "http://", "http://user:x@127.0.0.1:1", "127.0.0.1:8420"]
)
def test_a_credential_is_not_sent_just_anywhere(shell: Any, profile: Path, url: str) -> None:
    """Plain HTTP to another machine, and what is no broker's address, are refused before connecting."""
    shell.refused("token", "list", "--profile", profile, "--url", url)


def test_nobody_there_is_said(shell: Any, profile: Path) -> None:
    """A closed port is one line with the address and what to do."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        complaint = shell.refused("token", "list", "--profile", profile, "--url", url)
    assert url in complaint
    assert "serving" in complaint


def test_something_else_there_is_said(shell: Any, profile: Path) -> None:
    """A server that is no broker, and one that hangs up, are told apart from a refusal; nothing is retried for ever."""
    import http.server
    import threading

    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            assert "no token broker" in shell.refused("token", "list", "--profile", profile, "--url", url)
        finally:
            server.shutdown()
            thread.join()


def test_a_credential_that_is_none_is_not_sent(shell: Any, house: Any) -> None:
    """A variable with something else in it is refused here, and not quoted."""
    wrong = shell.with_environment(TOKENBROKER_ADMIN_TOKEN="secret-canary")
    complaint = wrong.refused("token", "list", "--url", house.url)
    assert "TOKENBROKER_ADMIN_TOKEN" in complaint
    assert "canary" not in complaint
