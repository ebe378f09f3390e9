"""The page about PKCS#11 says what the code does: its steps are followed with SoftHSM2, up to a sound broker."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
HOWTO = DOCS / "howto" / "pkcs11.md"
PLACE = "/var/lib/tokenbroker"


def blocks(language: str) -> list[str]:
    """The code blocks of one language."""
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", HOWTO.read_text(), re.DOTALL)
    assert found
    return found


def run(*command: str, place: Path) -> str:
    """What `command` prints, run in `place`."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "SOFTHSM2_CONF": str(place / "softhsm2.conf"), "HOME": str(place)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("label", ["data-keys-1", "data-keys-2"], ids=["rsa", "aes"])
def test_the_steps_lead_from_an_empty_token_to_a_sound_broker(softhsm: Any, tmp_path: Path, label: str) -> None:
    """Token, keys, configuration, init, doctor: every block of the page works, with RSA and with AES."""

    def here(text: str) -> str:
        return text.replace(PLACE, str(tmp_path)).replace("/usr/lib/softhsm/libsofthsm2.so", str(softhsm.module))

    make_token, check = blocks("sh")
    make_rsa, make_aes = blocks("python")
    run("bash", "-euc", here(make_token), place=tmp_path)
    assert (tmp_path / "user.pin").stat().st_mode & 0o777 == 0o600
    instead = make_rsa.partition("    session.generate_keypair")[0] + indent(make_aes, "    ")
    run(sys.executable, "-c", here(make_rsa if label in make_rsa else instead), place=tmp_path)
    (tmp_path / "broker.toml").write_text(here(blocks("toml")[0]).replace("data-keys-1", label))
    assert "SoftHSM is software" in run("bash", "-euc", here(check), place=tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        "not a PKCS#11 library that can be loaded",
        "does not start",
        "no token matches",
        "several tokens match",
        "several keys match",
        "refuses the PIN",
        "not tried again",
        "is locked",
        "one more wrong PIN would lock",
        "would give the key away",
        "has not come back from a call",
    ],
)
def test_the_messages_in_the_page_exist(words: str) -> None:
    """What the table of refusals quotes is somewhere in the messages of the code."""
    assert words in HOWTO.read_text()
    assert any(words in path.read_text() for path in (DOCS.parent / "kms" / "pkcs11").glob("*.py"))
