"""The profile: the file that tells the operator's command where a broker is and proves who asks. Mode 0600, TOML.

    url = "http://127.0.0.1:8420"
    credential = "tba_…"
    ca = "…/ca.pem"          # optional: PEM certificates to trust instead of the system's

`init` writes the first one. Which profile a command takes is decided in `broker.cli.reach`.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import msgspec

from broker.admin.credentials import credential_sha256
from broker.errors import StartRefused
from broker.private_files import read_private
from broker.secret import Secret

_BYTES_MAX = 64 * 1024


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    credential: str
    url: str = ""
    ca: str = ""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """url: "" for none. credential: shows in no repr. ca: a PEM file, None for the system's certificates."""

    credential: Secret
    url: str = ""
    ca: Path | None = None


def read_profile(path: Path) -> Profile:
    """The profile at `path`. StartRefused: it is missing, open to others, malformed, or holds no admin credential."""
    try:
        content = read_private(path, bytes_max=_BYTES_MAX)
        raw = msgspec.convert(tomllib.loads(content.decode()), _File)
    except OSError as error:
        raise StartRefused(f"the profile {path} cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError):
        # Without the reason: a parser's message may quote the line that holds the credential.
        raise StartRefused(
            f"{path} is no profile, which has the lines credential = and url =, as `init` writes"
        ) from None
    if credential_sha256(raw.credential) is None:
        raise StartRefused(f"{path} holds no admin credential; one begins with tba_ and `init` makes the first")
    ca = path.parent / raw.ca if raw.ca else None
    return Profile(credential=Secret(raw.credential.encode()), url=raw.url, ca=ca)


def render_profile(*, url: str, credential: Secret) -> bytes:
    """The content of a profile; url "" leaves that line out."""
    lines = ["# Where this broker is, and the credential of an admin. Keep it to yourself (mode 600)."]
    if url:
        lines.append(f"url = {json.dumps(url, ensure_ascii=False)}")  # a JSON string is a TOML basic string
    lines.append(f"credential = {json.dumps(credential.reveal().decode())}")
    return "".join(f"{line}\n" for line in lines).encode()
