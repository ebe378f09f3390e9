"""What a server's answer, or the lack of one, means in the terms of `kms.errors`: the only place that translates.

Vault and OpenBao tell most reasons apart by text alone, so a few texts of theirs are known here. Whatever is not known
is Denied: it must never count as an outage, which would keep cached keys in use.
"""

from __future__ import annotations

from enum import Enum

import aiohttp

from kms.errors import Corrupt, Denied, Disabled, KmsError, Unavailable

SAID_CHARS_MAX = 200
"""How much of a server's own words a message repeats."""


class Step(Enum):
    """What was asked for; the value completes "while …"."""

    KEY = "using the key"
    LOGIN = "logging in"
    WHOSE = "renewing or looking up its token"
    WORKER = "making a token for a worker"


class Forbidden(Exception):
    """Status 403: the token may not, or is no token any more. Who knows whose token it was makes it Denied."""


# With bare statuses, as health checks and proxies give them. 412: a replica that lags behind. 429: too many requests,
# or a standby. 472, 473: a standby of another kind.
_TRY_LATER = frozenset({408, 412, 429, 472, 473})
_DISABLED = (
    "version is disallowed by policy (too old)",
    "encryption key not found",
    "soft-deleted key",
    "no handler for route",
    "namespace not found",
)
_CORRUPT = ("message authentication failed", "invalid ciphertext", "unable to decrypt")
_WRONG_KEY = ("non-aead cipher suite", "missing 'context' for key derivation")


def status_error(status: int, said: str | None, *, step: Step) -> KmsError | Forbidden:
    """The error that a status other than success means. said: the server's words; None: not Vault's form of answer."""
    quoted = f": {said!r}" if said else ""
    doing = f"while {step.value}"
    if status >= 500 or status in _TRY_LATER:
        sealed = "; if it is sealed, unseal it" if status == 503 else ""
        return Unavailable(f"the server answered {status} {doing}{sealed}{quoted}")
    if 300 <= status < 400:
        return Unavailable(
            f"the server answered with a redirect ({status}) {doing}, and none is followed, for it would carry tokens"
            " and keys elsewhere; name the active node, or an address that always leads to it, in the key URI"
        )
    if status == 403 and step is not Step.LOGIN:
        return Forbidden()
    if step is Step.KEY and said is not None:
        return _key_error(status, said.lower(), quoted)
    return Denied(f"the server refused {doing} (status {status}){_remedy(step)}{quoted}")


def _key_error(status: int, said: str, quoted: str) -> KmsError:
    if status == 404 or any(text in said for text in _DISABLED):
        return Disabled(
            "there is no such mount, namespace, key or key version, or it is not to be used any more: check the URI,"
            f" the key's min_decryption_version, and whether it was deleted{quoted}"
        )
    if any(text in said for text in _CORRUPT):
        return Corrupt(
            f"the server cannot open this blob: it was changed, or belongs to another key or context{quoted}"
        )
    if any(text in said for text in _WRONG_KEY):
        return Denied(
            f"the key is of a type that binds no context; take an AES-GCM or ChaCha20 key, not derived{quoted}"
        )
    return Denied(f"the server refused while using the key (status {status}){quoted}")


def _remedy(step: Step) -> str:
    if step is Step.LOGIN:
        return "; check role_id, the secret id in secret_id_file (which may have ended), and approle_mount"
    return "; check worker_role, and which policies that token role allows" if step is Step.WORKER else ""


def connection_error(error: aiohttp.ClientError | OSError) -> KmsError:
    """The error that no answer means. The cause is left out, for it can hold the head of the request."""
    # Who cannot prove to be the server has said nothing: were it a refusal, whoever can divert the line, and could as
    # well cut it, could also wipe the broker's caches.
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Unavailable(
            "the server's certificate is not vouched for; name its CA in ca_file, or renew the certificate"
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return Unavailable("whoever answers there does not speak TLS as a server should; check host and port")
    if isinstance(error, aiohttp.ClientResponseError):
        return Denied("whoever answers there does not speak HTTP as a server should; check host and port")
    return Unavailable(f"no connection to the server ({type(error).__name__}); the same call may succeed later")


def shown(texts: list[str], *, hidden: tuple[str, ...]) -> str:
    """The server's words on one line, shortened; nothing of them if one of the texts to be hidden is in them."""
    said = "; ".join(texts)
    if any(secret and secret in said for secret in hidden):
        return ""
    return " ".join(said.split())[:SAID_CHARS_MAX]
