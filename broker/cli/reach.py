"""Which broker a command speaks to, and with whose credential.

Where: --url, TOKENBROKER_URL, the profile, http://127.0.0.1:8420. Who: --profile, TOKENBROKER_ADMIN_TOKEN,
TOKENBROKER_PROFILE, profile.toml in --data-dir or TOKENBROKER_DATA_DIR, ~/.config/tokenbroker/profile.toml; the first
that is there. Never the working directory: a folder that somebody prepared must not receive secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.admin.credentials import credential_sha256
from broker.cli.failures import CommandFailed
from broker.profile import Profile, read_profile
from broker.secret import Secret
from tokenbroker_client.endpoint import parse_endpoint
from tokenbroker_client.errors import BadAddress, PlaintextRefused

DEFAULT_URL: Final = "http://127.0.0.1:8420"
TOKEN: Final = "TOKENBROKER_ADMIN_TOKEN"  # noqa: S105 - the variable's name
URL: Final = "TOKENBROKER_URL"
PROFILE: Final = "TOKENBROKER_PROFILE"
DATA_DIR: Final = "TOKENBROKER_DATA_DIR"
INSECURE: Final = "TOKENBROKER_INSECURE_PLAINTEXT"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """url: http or https, without a path. ca: PEM certificates to trust, None for the system's."""

    url: str
    credential: Secret
    ca: Path | None


def find_reach(
    *, url: str | None, profile: Path | None, data_dir: Path | None, environ: Mapping[str, str], home: Path
) -> Reach:
    """Read where and who. CommandFailed, StartRefused: no credential, an exposed profile, or an address unfit."""
    token = environ.get(TOKEN, "")
    if profile is None and token:
        if credential_sha256(token) is None:
            raise CommandFailed(f"{TOKEN} is no admin credential; one begins with tba_")
        known = Profile(credential=Secret(token.encode()))
    else:
        known = read_profile(_profile_path(profile, data_dir, environ, home))
    where = url or environ.get(URL) or known.url or DEFAULT_URL
    return Reach(url=_base(where, insecure=environ.get(INSECURE) == "1"), credential=known.credential, ca=known.ca)


def _profile_path(profile: Path | None, data_dir: Path | None, environ: Mapping[str, str], home: Path) -> Path:
    if profile is not None:
        return profile
    if data_dir is None and environ.get(PROFILE):
        return Path(environ[PROFILE])
    folder = data_dir or (Path(environ[DATA_DIR]) if environ.get(DATA_DIR) else None)
    if folder is not None:
        return folder / "profile.toml"
    found = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "tokenbroker" / "profile.toml"
    if not found.exists():
        raise CommandFailed(
            f"no admin credential: name the profile that `init` wrote (--profile or {PROFILE}), its folder "
            f"(--data-dir or {DATA_DIR}), or set {TOKEN}"
        )
    return found


def _base(url: str, *, insecure: bool) -> str:
    """The URL without a path; ws and wss mean http and https."""
    try:
        return parse_endpoint(url, insecure_plaintext=insecure).enroll_url.removesuffix("/v1/enroll")
    except PlaintextRefused:
        raise CommandFailed(
            f"{url} is neither TLS nor loopback, so it would show the credential to the network: use https://, or set "
            f"{INSECURE}=1 to insist"
        ) from None
    except BadAddress as error:
        raise CommandFailed(f"{url[:200]}: {error}") from None
