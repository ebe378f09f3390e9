"""The configuration: one TOML file, every key also as `TOKENBROKER_SECTION__KEY`, unknown keys refused.

What each part means to its own room is in that room's settings type; here they are read, checked and handed out.
`docs/reference/settings.md` is generated from the fields below.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from broker.errors import BadRequest, StartRefused
from broker.spans import parse_span

ENV_PREFIX = "TOKENBROKER_"


def _span(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=value)
    try:
        return parse_span(str(value))
    except BadRequest as error:
        raise ValueError(error.message) from None


Span = Annotated[timedelta, BeforeValidator(_span)]
OptionalSpan = Annotated[timedelta | None, BeforeValidator(_span)]


class Section(BaseModel):
    """A table of the configuration. Unknown keys refuse to start."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Cluster(Section):
    """[cluster]"""

    id: str = Field(default="", description="Pins the root of integrity; written by `init`.")


class Server(Section):
    """[server]"""

    listen: str = Field(default="127.0.0.1:8420", description="HOST:PORT; port 0 takes a free one.")
    instance: str = Field(
        default="",
        pattern=r"^([a-z0-9][a-z0-9._-]{0,62})?$",
        description="This replica's lasting name in the audit log; default: the host's name.",
    )
    tls_cert: Path | None = Field(default=None, description="PEM certificate chain; re-read when the file changes.")
    tls_key: Path | None = Field(default=None, description="PEM private key of the certificate.")
    insecure_plaintext: bool = Field(
        default=False, description="Serve without TLS on an address that is not loopback. Only behind a TLS proxy."
    )
    proxy_certs: tuple[Path, ...] = Field(
        default=(), description="PEM leaf certificates of TLS-terminating proxies, for channel binding."
    )
    shared_addresses: bool = Field(
        default=False,
        description="A proxy or NAT hides the addresses of workers: count no handshakes by address.",
    )
    heartbeat: Span = Field(default=timedelta(seconds=20), description="Interval of WebSocket pings.")
    drain: Span = Field(default=timedelta(seconds=10), description="Longest time for letting workers go at shutdown.")
    sessions_per_worker: int = Field(default=64, ge=1, description="Connections one worker may have on this replica.")


class StorageSection(Section):
    """[storage]"""

    url: str = Field(
        default="", description="`sqlite:////PATH`, or `postgresql://USER@HOST/DATABASE`; for tests `memory:NAME`."
    )
    scratch: Path | None = Field(
        default=None, description="Where backups and exports are prepared; default: beside the SQLite file."
    )


class KmsSection(Section):
    """[kms]"""

    keys: tuple[str, ...] = Field(default=(), description="Key URIs for keyrings that name none; each wraps.")
    cache_soft_ttl: Span = Field(
        default=timedelta(seconds=300), description="After this, a cached key is proved again."
    )
    cache_hard_ttl: Span = Field(default=timedelta(seconds=3600), description="After this, a cached key is wiped.")
    rate_per_s: float = Field(default=100.0, gt=0, description="Most calls a second to one KMS key.")
    active_days: int = Field(default=30, ge=1, description="Age in days at which a data key is replaced.")


class KeyringSection(Section):
    """[keyrings.NAME]"""

    kms_keys: tuple[str, ...] = Field(default=(), description="Key URIs; empty: those of [kms].")
    authorize: Literal["broker", "kms"] = Field(default="broker", description="Whether the KMS decides per worker.")
    cache_soft_ttl: OptionalSpan = Field(default=None, description="As in [kms], for this keyring; default: that one.")
    cache_hard_ttl: OptionalSpan = Field(default=None, description="As in [kms], for this keyring; default: that one.")
    strict: bool = Field(
        default=False, description="Keep no data key: each serves those who waited for it, for a second at most."
    )

    @model_validator(mode="after")
    def _strict_has_no_ttl(self) -> Self:
        if self.strict and (self.cache_soft_ttl is not None or self.cache_hard_ttl is not None):
            raise ValueError("a strict keyring keeps no data key; take out cache_soft_ttl and cache_hard_ttl")
        return self


class LeaseSection(Section):
    """[leases]"""

    per_session: int = Field(default=1000, ge=1, le=100_000, description="Leases one session may hold.")
    retention: Span = Field(default=timedelta(days=30), description="How long ended leases stay on record.")


class AuditSection(Section):
    """[audit]"""

    anchor_file: Path | None = Field(default=None, description="Signed checkpoints are appended here too.")


class AdminSection(Section):
    """[admin]"""

    reveal: bool = Field(default=True, description="Whether operators may have a token's value shown.")


class RotationSection(Section):
    """[rotation]"""

    commands: tuple[str, ...] = Field(
        default=(), description="Programs (absolute paths) that the rotator `command` may run; none: it runs nothing."
    )
    hosts: tuple[str, ...] = Field(
        default=(),
        description="Hosts (HOST or HOST:PORT) that rotators and issuers may sign in at and send values to; none: only "
        "AWS itself.",
    )
    webhooks: tuple[str, ...] = Field(
        default=(), description="Hosts (HOST or HOST:PORT) that the rotator `webhook` may call; none: it calls nobody."
    )


class LogSection(Section):
    """[log]"""

    format: Literal["console", "json"] = Field(default="json", description="How log lines look.")
    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The least level shown.")


class Settings(Section):
    """The whole configuration."""

    cluster: Cluster = Cluster()
    server: Server = Server()
    storage: StorageSection = StorageSection()
    kms: KmsSection = KmsSection()
    keyrings: dict[str, KeyringSection] = Field(default_factory=dict)
    leases: LeaseSection = LeaseSection()
    audit: AuditSection = AuditSection()
    admin: AdminSection = AdminSection()
    rotation: RotationSection = RotationSection()
    log: LogSection = LogSection()

    @property
    def instance(self) -> str:
        """This replica's name: configured, or made of the host's name."""
        if self.server.instance:
            return self.server.instance
        name = re.sub(r"[^a-z0-9._-]", "-", socket.gethostname().lower())[:63].lstrip("._-")
        return name or "broker"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on. StartRefused: not HOST:PORT."""
        host, separator, port = self.server.listen.rpartition(":")
        if not separator or not port.isdecimal() or int(port) > 65535:
            raise StartRefused(f"server.listen is {self.server.listen!r}; write HOST:PORT, such as 127.0.0.1:8420")
        return host.strip("[]"), int(port)


def load_settings(path: Path, environ: dict[str, str] | None = None) -> Settings:
    """Read a configuration file, and the environment over it.

    StartRefused: the file cannot be read, is no TOML, or a key is unknown or out of its bound; the message names each.
    """
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except FileNotFoundError:
        raise StartRefused(f"there is no configuration at {path}; make one with `tokenbroker init`") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartRefused(f"the configuration {path} cannot be read: {error}") from None
    return read_settings(tables, dict(os.environ) if environ is None else environ, where=str(path))


def read_settings(tables: dict[str, Any], environ: dict[str, str], *, where: str) -> Settings:
    """Check tables, and the environment over them. StartRefused: as `load_settings`."""
    _overlay(tables, environ)
    try:
        return Settings.model_validate(tables)
    except ValidationError as error:
        problems = "; ".join(_told(problem) for problem in error.errors(include_url=False, include_input=False))
        raise StartRefused(f"the configuration {where} is refused: {problems}") from None


def _told(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{key} is no key of the configuration; see docs/reference/settings.md"
    return f"{key}: {problem['msg']}"


_OURS = re.compile(r"TOKENBROKER_([A-Z]+)__([A-Z0-9_]+)")


def _overlay(tables: dict[str, Any], environ: dict[str, str]) -> None:
    """Put `TOKENBROKER_SECTION__KEY` over the file. Lists are separated by commas; keyrings are for the file alone."""
    for name, text in environ.items():
        match = _OURS.fullmatch(name)
        if match is None:
            continue
        section, key = match[1].lower(), match[2].lower()
        table = tables.setdefault(section, {})
        field = _field(section, key)
        if isinstance(table, dict):
            table[key] = [part.strip() for part in text.split(",") if part.strip()] if field is tuple else text


def _field(section: str, key: str) -> object:
    """The outer type of a key, as far as the environment needs it."""
    model = Settings.model_fields.get(section)
    if model is None or not isinstance(model.annotation, type) or not issubclass(model.annotation, Section):
        return str
    field = model.annotation.model_fields.get(key)
    return getattr(field.annotation, "__origin__", str) if field is not None else str
