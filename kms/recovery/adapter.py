"""The recovery key as a Kms: it wraps with the public half, and opens only where the private half was put back."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from kms.bounds import check_blob, check_context, check_key
from kms.errors import BadKey, Corrupt, Denied
from kms.key_uri import split_uri
from kms.naming import naming, unread
from kms.port import KEY_BYTES, Caller, Description, Kms, Wrap
from kms.private_files import read_private
from kms.recovery.envelope import key_id, unwrap_key, wrap_key
from kms.recovery.text import PAPER_BYTES_MAX, public_text, read_paper, read_public

SCHEME = "recovery"
PRIVATE_HALF_IS_HERE = (
    "the private half of the recovery key is on this machine, and whoever reads its file and the database can open"
    " every token: run `tokenbroker key rewrap`, take ?private-key= out of the URI again, and destroy the file"
)
ELSEWHERE = (
    "a recovery key only wraps here: its private half was printed once by `tokenbroker recovery keygen` and is on"
    " paper; docs/howto/break-glass.md says how to open with it"
)

_FILE = "file:"


def recovery_uri(public_key: X25519PublicKey) -> str:
    """The URI that names this recovery key in a configuration."""
    return f"{SCHEME}:{public_text(public_key.public_bytes_raw())}"


@asynccontextmanager
async def open_recovery(uri: str) -> AsyncIterator[Kms]:
    """Open `recovery:PUBLIC`, which only wraps, or `recovery:PUBLIC?private-key=file:PATH`, which opens as well.

    BadKey: the URI is mistyped; the file cannot be read, is open to others, is mistyped, or has another key's half.
    """
    # What is typed in place of the public half may be the private one.
    with naming(unread(uri)):
        text, options = split_uri(
            uri, scheme=SCHEME, example="recovery:PUBLIC, as keygen printed it", options=("private-key",)
        )
        public_key = X25519PublicKey.from_public_bytes(read_public(text))
        private_key = _private_half(options["private-key"], public_key) if options else None
    yield RecoveryKms(uri=uri, public_key=public_key, private_key=private_key)


def _private_half(where: str, public_key: X25519PublicKey) -> X25519PrivateKey:
    """The private half in the file that the option names. One small read, at the start only."""
    path = Path(where.removeprefix(_FILE)).absolute()
    if not where.startswith(_FILE) or where == _FILE:
        raise BadKey("private-key names a file: recovery:PUBLIC?private-key=file:/run/tokenbroker/recovery")
    try:
        content = read_private(path, bytes_max=PAPER_BYTES_MAX)
    except OSError as error:
        raise BadKey(f"{path}: {error.strerror or type(error).__name__}") from error
    private_key = X25519PrivateKey.from_private_bytes(read_paper(content.decode(errors="replace")))
    if private_key.public_key().public_bytes_raw() != public_key.public_bytes_raw():
        raise BadKey(f"the private half in {path} is that of {recovery_uri(private_key.public_key())}")
    return private_key


class RecoveryKms:
    """One recovery key. Without the private half it wraps, and says of itself that it does nothing else."""

    def __init__(self, *, uri: str, public_key: X25519PublicKey, private_key: X25519PrivateKey | None) -> None:
        self._uri = uri
        self._public_key = public_key
        self._private_key = private_key

    def __repr__(self) -> str:
        return f"RecoveryKms({self._uri!r})"

    @property
    def uri(self) -> str:
        """As the port says."""
        return self._uri

    @property
    def wraps_only(self) -> bool:
        """Whether the private half is elsewhere."""
        return self._private_key is None

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> Wrap:
        """As the port says; the blob has 89 bytes, and the key version is the key's id."""
        with naming(self._uri):
            check_key(key)
            asked = check_context(context, or_raise=BadKey)
            blob = wrap_key(key, public_key=self._public_key, context=asked)
            return Wrap(key_version=key_id(self._public_key).hex(), blob=blob)

    async def unwrap(self, wrap: Wrap, context: Mapping[str, str], caller: Caller | None = None) -> bytes:
        """As the port says. Denied: the private half is not here, or a caller is named: it decides for no worker."""
        with naming(self._uri):
            check_blob(wrap.blob)
            asked = check_context(context, or_raise=Corrupt)
            if self._private_key is None:
                raise Denied(ELSEWHERE)
            if caller is not None:
                raise Denied("a recovery key decides for no worker; it opens data keys for the broker itself")
            return unwrap_key(wrap.blob, private_key=self._private_key, context=asked)

    async def generate(self, context: Mapping[str, str]) -> tuple[bytes, Wrap]:
        """As the port says."""
        key = secrets.token_bytes(KEY_BYTES)
        return key, await self.wrap(key, context)

    async def check(self) -> None:
        """Return: nothing can be away. Whether both halves belong together was found out when it was opened."""

    async def describe(self) -> Description:
        """As the port says."""
        here = self._private_key is not None
        return Description(
            provider=SCHEME,
            state="opens" if here else "only wraps",
            key_version=key_id(self._public_key).hex(),
            hsm=False,
            warnings=(PRIVATE_HALF_IS_HERE,) if here else (),
        )
