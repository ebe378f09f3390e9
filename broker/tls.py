"""TLS for the broker's listener: a certificate that can be replaced while serving, and channel bindings to match.

Each connection keeps the context that its handshake chose, so its binding is that of the certificate it really saw.
"""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.clock import Clock
from broker.errors import StartRefused

log = structlog.get_logger()

_RELOAD_TICK_S = 5.0


def leaf_digest(path: Path) -> bytes:
    """SHA-256 over the DER of the first certificate in a PEM file. StartRefused: there is none."""
    try:
        leaf = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError, IndexError) as error:
        raise StartRefused(f"{path} holds no readable PEM certificate: {error}") from None
    return hashlib.sha256(leaf.public_bytes(Encoding.DER)).digest()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Certificate:
    """The certificate in force. `outer` goes to the listener; it hands every handshake the newest inner context."""

    def __init__(self, *, chain: Path, key: Path) -> None:
        self._chain = chain
        self._key = key
        self._stamp = self._stamped()
        self._inner, self._digest = self._load()
        self._digests: dict[ssl.SSLContext, bytes] = {self._inner: self._digest}
        self.outer = self._load()[0]
        self.outer.sni_callback = self._choose

    def bindings(self, context: ssl.SSLContext) -> tuple[bytes, ...]:
        """The digests that a connection of this context may have seen."""
        digest = self._digests.get(context)
        return (self._digest,) if digest is None else (digest,)

    async def watch(self, clock: Clock) -> None:
        """Take up replaced files, until cancelled. Files that do not fit together are logged and tried again."""
        while True:
            await clock.sleep(_RELOAD_TICK_S)
            self.reload()

    def reload(self) -> None:
        """Take up the files if they changed."""
        try:
            stamp = self._stamped()
            if stamp == self._stamp:
                return
            self._inner, self._digest = self._load()
        except StartRefused as error:
            log.warning("certificate_not_reloaded", error=error.message)
            return
        self._stamp = stamp
        # Two are enough: a connection looks its binding up within its handshake's five seconds.
        latest = list(self._digests.items())[-1:]
        self._digests = {**dict(latest), self._inner: self._digest}
        log.info("certificate_reloaded", sha256=self._digest.hex())

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _outer: ssl.SSLContext) -> None:
        connection.context = self._inner

    def _stamped(self) -> tuple[int, int]:
        try:
            return self._chain.stat().st_mtime_ns, self._key.stat().st_mtime_ns
        except OSError as error:
            raise StartRefused(f"the TLS certificate or key cannot be read: {error}") from None

    def _has_passphrase(self) -> str:
        raise StartRefused(f"the TLS key {self._key} is sealed with a passphrase; store it without one, mode 0600")

    def _load(self) -> tuple[ssl.SSLContext, bytes]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # No resumption: a resumed session would not show which certificate the client once saw.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            # Without a passphrase of our own to offer, OpenSSL would ask for one on the terminal, and wait.
            context.load_cert_chain(self._chain, self._key, password=self._has_passphrase)
        except (OSError, ssl.SSLError) as error:
            raise StartRefused(f"the TLS certificate {self._chain} and its key cannot be used: {error}") from None
        return context, leaf_digest(self._chain)


def configured_certificate(*, chain: Path | None, key: Path | None) -> Certificate | None:
    """The certificate that the configuration names, if it names one. StartRefused: half of one, or an unusable one."""
    if chain is None and key is None:
        return None
    if chain is None or key is None:
        raise StartRefused("server.tls_cert and server.tls_key belong together; one of them is missing")
    return Certificate(chain=chain, key=key)


def bindings_of(certificate: Certificate | None) -> Callable[[ssl.SSLContext], tuple[bytes, ...]]:
    """How to find the channel bindings of a TLS connection; there are none without a certificate."""
    return (lambda _context: ()) if certificate is None else certificate.bindings
