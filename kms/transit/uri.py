"""The URI of a transit key: `transit:https://HOST:PORT/MOUNT/KEY?option=value&…`.

MOUNT may have several segments, KEY is the last one. Whether the server, the key and the files exist is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from kms.errors import BadKey
from kms.key_uri import is_loopback, split_uri

SCHEME = "transit"
EXAMPLE = "transit:https://vault.example:8200/transit/tokenbroker"
SEGMENTS_MAX = 8
"""Most segments of a mount and a key, or of a namespace."""

_OPTIONS = ("token_file", "role_id", "secret_id_file", "approle_mount", "namespace", "ca_file", "worker_role")
_URL = re.compile(r"(https?)://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5})/(.+)", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
# No dot segments, no percent signs: what stands here goes into paths as it is, and can lead nowhere else.
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_ROLE_ID = re.compile(r"[!-~]{1,512}", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class TransitUri:
    """Where a transit key is and how to log in. Either token_file, or role_id and secret_id_file, or neither."""

    origin: str
    mount: str
    key: str
    token_file: Path | None
    role_id: str | None
    secret_id_file: Path | None
    approle_mount: str
    namespace: str | None
    ca_file: Path | None
    worker_role: str | None

    @property
    def encrypted(self) -> bool:
        """Whether the server is reached over TLS."""
        return self.origin.startswith("https:")


def parse_uri(uri: str) -> TransitUri:
    """Read `uri`; relative paths are taken from the working directory at this moment, once.

    BadKey: another form, http to anything but a loopback address, user-info, a fragment, a dot segment or another
    odd character, an unknown, empty or repeated option, or options that do not go together.
    """
    where, options = split_uri(uri, scheme=SCHEME, example=EXAMPLE, options=_OPTIONS)
    match = _URL.fullmatch(where)
    if match is None:
        raise BadKey(
            f"a transit key URI reads like {EXAMPLE}: with a port, without user, password or fragment; tokens are"
            " named by token_file"
        )
    protocol, host, port = match[1], match[2], int(match[3])
    if not _is_host(host):
        raise BadKey(f"{host} is neither the name nor the address of a host")
    if not 1 <= port <= 65535:
        raise BadKey(f"the port {port} is not between 1 and 65535")
    if protocol == "http" and not is_loopback(host):
        raise BadKey("http carries keys and tokens in the clear: use https, or http to a loopback address (127.0.0.1)")
    mount, slash, key = _path(match[4], what="MOUNT/KEY").rpartition("/")
    if not slash:
        raise BadKey(f"the path holds a mount and a key, as in {EXAMPLE}")
    _check_login(options)
    return TransitUri(
        origin=f"{protocol}://{host}:{port}",
        mount=mount,
        key=key,
        token_file=_file(options, "token_file"),
        role_id=options.get("role_id"),
        secret_id_file=_file(options, "secret_id_file"),
        approle_mount=_path(options.get("approle_mount", "approle"), what="approle_mount"),
        namespace=_path(options["namespace"], what="namespace") if "namespace" in options else None,
        ca_file=_ca_file(options, protocol),
        worker_role=_segment(options["worker_role"]) if "worker_role" in options else None,
    )


def _check_login(options: Mapping[str, str]) -> None:
    if ("role_id" in options) != ("secret_id_file" in options):
        raise BadKey("an AppRole login takes both role_id and secret_id_file")
    if "role_id" in options and "token_file" in options:
        raise BadKey("log in one way: with token_file, or with role_id and secret_id_file")
    if "approle_mount" in options and "role_id" not in options:
        raise BadKey("approle_mount says where role_id logs in; give both, or neither")
    if "role_id" in options and _ROLE_ID.fullmatch(options["role_id"]) is None:
        raise BadKey("role_id is 1 to 512 printable ASCII characters without spaces")


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return all(_LABEL.fullmatch(label) for label in host.split("."))
    try:
        return ip_address(host.strip("[]")).version == 6
    except ValueError:
        return False


def _path(text: str, *, what: str) -> str:
    segments = text.split("/")
    if len(segments) > SEGMENTS_MAX or any(_SEGMENT.fullmatch(segment) is None for segment in segments):
        raise BadKey(
            f"{what} is 1 to {SEGMENTS_MAX} segments between slashes, each of letters, digits, '_', '.' and '-', and"
            " none starting with '.' or '-'"
        )
    return text


def _segment(text: str) -> str:
    if _SEGMENT.fullmatch(text) is None:
        raise BadKey("worker_role is the name of a token role: letters, digits, '_', '.' and '-'")
    return text


def _file(options: Mapping[str, str], name: str) -> Path | None:
    return Path(options[name]).absolute() if name in options else None


def _ca_file(options: Mapping[str, str], protocol: str) -> Path | None:
    if "ca_file" in options and protocol == "http":
        raise BadKey("ca_file has no meaning without https")
    return _file(options, "ca_file")
