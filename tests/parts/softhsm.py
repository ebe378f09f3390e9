"""SoftHSM2 tokens in a folder of the run's own, and keys on them.

SoftHSM reads SOFTHSM2_CONF when the library is initialised, so one folder serves the whole run. Keys are made, and
destroyed, by another process, as an operator would: what the library under test remembers in this one stays its own.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
"""Where Debian, Fedora, Arch and Homebrew put it."""
PIN = "481516"
RSA_USE = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
AES_USE = MechanismFlag.WRAP | MechanismFlag.UNWRAP
_CONF = "directories.tokendir = {folder}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"


@dataclass(frozen=True, kw_only=True)
class SoftToken:
    """One token, with the file that holds its PIN."""

    label: str
    serial: str
    folder: Path
    pin_file: Path


@dataclass(frozen=True, kw_only=True)
class SoftHsm:
    """The library, and the folder of its tokens."""

    module: Path
    folder: Path
    numbers: Iterator[int]

    def token(self, label: str = "") -> SoftToken:
        """A new token; made while a key of the library is open, it is seen when the library starts anew."""
        label = label or f"token-{next(self.numbers)}"
        before = set((self.folder / "tokens").iterdir())
        command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "23421815"]
        subprocess.run(command, check=True, capture_output=True)
        (made,) = set((self.folder / "tokens").iterdir()) - before
        pin_file = self.folder / f"{made.name}.pin"
        pin_file.touch(mode=0o600)
        pin_file.write_text(f"{PIN}\n")
        serial = made.name.replace("-", "")[-16:]
        return SoftToken(label=label, serial=serial, folder=made, pin_file=pin_file)

    def rsa(self, token: SoftToken, label: str, *, bits: int = 2048, **changes: Any) -> None:
        """An RSA pair fit for the broker, but for `changes`."""
        self.make(token, [{"kind": "rsa", "label": label, "bits": bits, **changes}])

    def aes(self, token: SoftToken, label: str, *, bits: int = 256, **changes: Any) -> None:
        """An AES key fit for the broker, but for `changes`."""
        self.make(token, [{"kind": "aes", "label": label, "bits": bits, **changes}])

    def make(self, token: SoftToken, orders: list[dict[str, Any]]) -> None:
        """What `orders` say, in a process of its own (`_obey`)."""
        asked = json.dumps({"module": str(self.module), "serial": token.serial, "orders": orders})
        subprocess.run([sys.executable, __file__, asked], check=True)

    def uri(self, token: SoftToken, label: str, *, pin_file: Path | None = None, more: str = "") -> str:
        """The URI of a key. SoftHSM does OAEP with SHA-1 alone."""
        files = f"module-path={self.module}&pin-source=file:{pin_file or token.pin_file}"
        return f"pkcs11:serial={token.serial};object={label}{more}?{files}&oaep-hash=sha1"

    @contextmanager
    def hanging(self, token: SoftToken) -> Iterator[None]:
        """While this lasts, calls that touch the token hang: another process holds the locks of its files."""
        command = [sys.executable, __file__, "--hold", str(token.folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdin is not None
            assert holder.stdout.readline() == b"held\n"
            try:
                yield
            finally:
                holder.stdin.close()


@contextmanager
def serving() -> Iterator[SoftHsm]:
    """SoftHSM in an empty folder."""
    import pytest  # here, for the process that makes keys does without, and starts in half the time

    module = next((Path(path) for path in MODULES if Path(path).exists()), None)
    if module is None:
        pytest.skip("SoftHSM2 is not installed: run `make debian` as root, or install the package softhsm2")
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        tokens = Path(folder) / "tokens"
        tokens.mkdir()
        conf = Path(folder) / "softhsm2.conf"
        conf.write_text(_CONF.format(folder=tokens))
        patch.setenv("SOFTHSM2_CONF", str(conf))
        yield SoftHsm(module=module, folder=Path(folder), numbers=count(1))


def _obey(asked: dict[str, Any]) -> None:
    token = pkcs11.lib(asked["module"]).get_token(token_serial=asked["serial"].encode())
    with token.open(rw=True, user_pin=PIN) as session:
        for order in asked["orders"]:
            named = {"label": order["label"], "id": bytes.fromhex(order.get("id", "01")), "store": True}
            match order["kind"]:
                case "rsa":
                    public, _ = session.generate_keypair(
                        KeyType.RSA,
                        order["bits"],
                        capabilities=order.get("use", RSA_USE),
                        private_template=_template(order),
                        **named,
                    )
                    if order.get("public") is False:
                        public.destroy()
                case "aes":
                    kept = {"capabilities": order.get("use", AES_USE), "template": _template(order)}
                    session.generate_key(KeyType.AES, order["bits"], **kept, **named)
                case "des3":
                    session.generate_key(KeyType.DES3, template=_template(order), **named)
                case "import":
                    value = {Attribute.VALUE: bytes(32), Attribute.CLASS: ObjectClass.SECRET_KEY}
                    kept = {Attribute.KEY_TYPE: KeyType.AES, Attribute.WRAP: True, Attribute.UNWRAP: True}
                    kept |= dict.fromkeys((Attribute.ENCRYPT, Attribute.DECRYPT, Attribute.SIGN), False)
                    stored = {Attribute.TOKEN: True, Attribute.LABEL: order["label"], Attribute.PRIVATE: True}
                    session.create_object({**value, **kept, **stored, **_template(order)})
                case "destroy":
                    for each in list(session.get_objects({Attribute.LABEL: order["label"]})):
                        each.destroy()


def _template(order: dict[str, Any]) -> dict[Attribute, Any]:
    return {
        Attribute.SENSITIVE: order.get("sensitive", True),
        Attribute.EXTRACTABLE: order.get("extractable", False),
    }


def _hold(folder: Path) -> None:
    held = [path.open("r+b") for path in folder.iterdir()]
    for file in held:
        fcntl.lockf(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1] == "--hold":
        _hold(Path(sys.argv[2]))
    else:
        _obey(json.loads(sys.argv[1]))
