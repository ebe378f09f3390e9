"""A worker's Ed25519 key and the file that keeps it. What is signed is in `transcript`.

The file is PKCS#8 PEM, with the worker's name and the cluster that enrolled it in lines before the PEM block, where
every PEM reader skips them:

    Tokenbroker-Worker: ci-1
    Tokenbroker-Cluster: …
    -----BEGIN PRIVATE KEY-----
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tokenbroker_client.errors import BadKey, KeyExposed
from tokenbroker_client.wire import WORKER_NAME_PATTERN, b64

_FILE_BYTES_MAX: Final = 16 * 1024
_HEADER: Final = re.compile(r"Tokenbroker-(Worker|Cluster): (\S{1,128})")


class WorkerKey:
    """An Ed25519 private key, with the worker's name and cluster where they are known. It shows in no repr."""

    __slots__ = ("_private", "cluster", "public_key", "worker")

    def __init__(self, private: Ed25519PrivateKey, *, worker: str | None = None, cluster: str | None = None) -> None:
        self._private = private
        self.public_key = private.public_key().public_bytes_raw()
        self.worker = worker
        self.cluster = cluster

    @classmethod
    def generate(cls, *, worker: str | None = None, cluster: str | None = None) -> WorkerKey:
        """Make a key pair from the system's randomness."""
        return cls(Ed25519PrivateKey.generate(), worker=worker, cluster=cluster)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> WorkerKey:
        """Read a key file.

        Raises KeyExposed when the group or others can reach it, or another user owns it, and BadKey when it cannot
        be read, is longer than 16 KiB, or holds no unencrypted Ed25519 key.
        """
        return _parse(_read_private_file(Path(path)), Path(path))

    def save(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        """Write the key file with mode 0600, so that it survives a power cut.

        Raises BadKey when it exists and `replace` is false, or cannot be written. Replacing is atomic.
        """
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            _write_private_file(temporary, self._to_pem())
            try:
                if replace:
                    temporary.replace(target)
                else:
                    os.link(temporary, target)  # fails when the target exists, as a rename would not
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(target.parent)
        except FileExistsError:
            raise BadKey(f"{target} exists already; move it away, or name another file") from None
        except OSError as error:
            raise BadKey(f"{target} cannot be written: {error.strerror}") from error

    @property
    def public_key_b64(self) -> str:
        """The public key as an operator registers it: 32 bytes, base64url without padding."""
        return b64(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature (RFC 8032)."""
        return self._private.sign(message)

    def _to_pem(self) -> bytes:
        lines = [
            f"Tokenbroker-{name}: {value}\n"
            for name, value in (("Worker", self.worker), ("Cluster", self.cluster))
            if value is not None
        ]
        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return "".join(lines).encode("utf-8") + pem

    def __repr__(self) -> str:
        return f"WorkerKey(public_key={self.public_key_b64!r}, worker={self.worker!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not to be pickled")


def _read_private_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # The open file is asked, not the path, so nobody can swap it in between.
            _require_private(os.fstat(file.fileno()), path)
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadKey(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _FILE_BYTES_MAX:
        raise BadKey(f"{path} is longer than {_FILE_BYTES_MAX} bytes, so it is no key file")
    return data


def _require_private(status: os.stat_result, path: Path) -> None:
    if os.name != "posix":  # pragma: no cover - mode bits mean nothing there
        return
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyExposed(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, so others can reach it; run: chmod 600 {path}"
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise KeyExposed(f"{path} belongs to another user, who can read it; run: chown {os.geteuid()} {path}")


def _parse(data: bytes, path: Path) -> WorkerKey:
    head, marker, _ = data.partition(b"-----BEGIN")
    try:
        private = load_pem_private_key(data[len(head) :], password=None)
        headers = dict(_HEADER.findall(head.decode("utf-8"))) if marker else {}
    except TypeError:
        raise BadKey(f"{path} is encrypted; a worker starts unattended, so its key file is not") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey(f"{path} holds no private key in PKCS#8 PEM") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise BadKey(f"{path} holds a key of another kind; Ed25519 belongs there")
    worker = headers.get("Worker")
    if worker is not None and not re.match(WORKER_NAME_PATTERN, worker):
        raise BadKey(f"{path} names a worker {worker!r}, which no worker can be called")
    return WorkerKey(private, worker=worker, cluster=headers.get("Cluster"))


def _write_private_file(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
