"""The proxies of config/deploy/proxies before a broker: the files as they are shipped, but for addresses and paths."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yarl
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.x509.oid import NameOID

from broker.clock import SystemClock

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "deploy" / "proxies"
STARTS_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Program:
    """A proxy. run, check: its arguments, with the file at the end of `-f` or `-c`."""

    package: str
    run: tuple[str, ...]
    check: tuple[str, ...]

    def command(self, arguments: tuple[str, ...], file: Path) -> list[str]:
        found = shutil.which(self.package, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if found is None:
            pytest.skip(f"Debian's package {self.package} is not installed")
        return [found, *arguments, str(file)]


HAPROXY = Program(package="haproxy", run=("-db", "-f"), check=("-c", "-f"))
NGINX = Program(package="nginx", run=("-e", "stderr", "-g", "daemon off;", "-c"), check=("-e", "stderr", "-t", "-c"))
PASSES = {"haproxy.cfg": HAPROXY}
ENDS = {"haproxy-ends-tls.cfg": HAPROXY, "nginx.conf": NGINX}
PROXIES = PASSES | ENDS


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A fresh self-signed certificate for localhost: chain, key, and both in one file as HAProxy wants them."""

    chain: Path
    key: Path
    both: Path
    digest: bytes


def make_certificate(folder: Path, name: str) -> Certificate:
    key, now = generate_private_key(SECP256R1()), SystemClock().now()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    made = Certificate(
        chain=folder / f"{name}.crt",
        key=folder / f"{name}.key",
        both=folder / f"{name}.pem",
        digest=hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest(),
    )
    made.chain.write_bytes(chain)
    made.key.write_bytes(secret)
    made.both.write_bytes(chain + secret)
    return made


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder with the certificates of broker and proxy."""

    folder: Path
    broker: Certificate
    proxy: Certificate

    def adapted(self, name: str, *, upstream: int, port: int) -> Path:
        """The shipped file with this machine's addresses, ports, names and paths; all of its replicas are one."""
        changes = {f"10.0.0.{number}:8420": f"127.0.0.1:{upstream}" for number in (11, 12, 13)}
        changes["tokenbroker.example.com"] = "localhost"
        if name == "nginx.conf":
            changes |= {
                "listen 443": f"listen 127.0.0.1:{port}",
                "worker_rlimit_nofile 131072": "worker_rlimit_nofile 1024",
                "worker_connections 65536": "worker_connections 500",
                "/run/nginx.pid": str(self.folder / "nginx.pid"),
                "/etc/nginx/tls/proxy.pem": str(self.proxy.chain),
                "/etc/nginx/tls/proxy.key": str(self.proxy.key),
                "/etc/nginx/broker-ca.pem": str(self.broker.chain),
            }
            if os.geteuid():
                kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
                own = "".join(f"    {kind}_temp_path {self.folder / kind};\n" for kind in kinds)
                changes |= {"user www-data;\n": "", "http {\n": f"http {{\n{own}"}
        else:
            changes["maxconn 100000"] = "maxconn 1000"  # a test machine may allow fewer descriptors
            changes["inter 2s"] = "inter 100ms"
            changes |= {"bind :443": f"bind 127.0.0.1:{port}", "/etc/haproxy/broker-ca.pem": str(self.broker.chain)}
            if name in ENDS:
                changes["/etc/haproxy/tls/proxy.pem"] = str(self.proxy.both)
            if os.geteuid():
                changes["    user haproxy\n    group haproxy\n"] = ""
        text = (SHIPPED / name).read_text(encoding="utf-8")
        for shipped, here in changes.items():
            assert shipped in text, f"{name} has no {shipped}"
            text = text.replace(shipped, here)
        file = self.folder / name
        file.write_text(text, encoding="utf-8")
        return file


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(
        folder=tmp_path, broker=make_certificate(tmp_path, "broker"), proxy=make_certificate(tmp_path, "proxy")
    )


@asynccontextmanager
async def proxied(place: Place, name: str, url: str) -> AsyncIterator[str]:
    """The proxy before the broker at `url`, until the body ends; gives the URL that workers know."""
    port = _free_port()
    file = place.adapted(name, upstream=int(url.rpartition(":")[2]), port=port)
    program = PROXIES[name]
    output = place.folder / f"{name}.log"
    with output.open("wb") as log:
        process = await asyncio.create_subprocess_exec(*program.command(program.run, file), stdout=log, stderr=log)
    try:
        async with asyncio.timeout(STARTS_S):
            while not await _listens(port):
                assert process.returncode is None, output.read_text()
                await asyncio.sleep(0.02)
        yield f"https://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True


@pytest.fixture
def open_behind(open_house: Any, place: Place) -> Any:
    """Serves a broker over TLS with settings of a test, for proxies."""

    def opened(**options: Any) -> Any:
        return open_house(server__tls_cert=str(place.broker.chain), server__tls_key=str(place.broker.key), **options)

    return opened


def settings_for(name: str, place: Place) -> dict[str, str]:
    """What docs/howto/deploy.md tells to set for this proxy."""
    if name in PASSES:
        return {"server__shared_addresses": "true"}
    return {"server__proxy_certs": str(place.proxy.chain)}


@pytest.mark.parametrize("name", PROXIES)
def test_the_program_finds_nothing_wrong(place: Place, name: str) -> None:
    """The proxy's own check takes the file, without a warning."""
    program = PROXIES[name]
    command = program.command(program.check, place.adapted(name, upstream=1, port=_free_port()))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in (done.stdout + done.stderr).lower(), done.stderr


@pytest.mark.parametrize("name", PROXIES)
async def test_a_worker_leases_through_it(open_behind: Any, prepare: Any, wire: Any, place: Place, name: str) -> None:
    """A worker binds to the certificate that it sees, leases, and gets a rotation pushed."""
    async with open_behind(**settings_for(name, place)) as house:
        who = await prepare(house)
        async with proxied(place, name, house.url) as url, wire.dial(url) as worker:
            assert worker.binding == (place.broker if name in PASSES else place.proxy).digest
            assert (await worker.handshake(who))["type"] == "welcome"
            assert (await worker.lease("github/ci"))["value"] == "s3cret"
            await house.put("github/ci", b"rotated")
            assert (await worker.push())["value"] == "rotated"


@pytest.mark.parametrize("name", [name for name in PROXIES if PROXIES[name] is HAPROXY])
async def test_haproxy_leaves_out_a_broker_that_is_not_ready(
    open_behind: Any, prepare: Any, wire: Any, place: Place, name: str
) -> None:
    """New connections end at a broker whose /readyz is red; a worker that is there goes on leasing."""
    async with open_behind(**settings_for(name, place)) as house:
        who = await prepare(house)
        async with proxied(place, name, house.url) as url, wire.dial(url) as worker:
            assert (await worker.handshake(who))["type"] == "welcome"
            house.broker.sessions.draining = True
            log = place.folder / f"{name}.log"
            await house.until(lambda: "has no server available" in log.read_text(), within_s=STARTS_S)
            assert "Layer7 wrong status, code: 503" in log.read_text()
            assert (await worker.lease("github/ci"))["value"] == "s3cret"


@pytest.mark.parametrize("name", ENDS)
async def test_a_proxy_that_the_broker_does_not_know_is_a_man_in_the_middle(
    open_behind: Any, prepare: Any, wire: Any, place: Place, name: str
) -> None:
    """Without its certificate in server.proxy_certs, every handshake through a proxy that ends TLS is refused."""
    async with open_behind() as house:
        who = await prepare(house)
        async with proxied(place, name, house.url) as url, wire.dial(url) as worker:
            assert await worker.handshake(who) == {"type": "error", "code": "unauthenticated"}


@pytest.mark.parametrize("told", [False, True])
async def test_strangers_behind_a_proxy_that_passes_tls_through(
    open_behind: Any, prepare: Any, wire: Any, place: Place, told: bool
) -> None:
    """Their failures lock out all who come through it, unless the broker is told that addresses are shared."""
    options = settings_for("haproxy.cfg", place) if told else {}
    async with open_behind(session={"failures_max": 1}, **options) as house:
        who = await prepare(house)
        async with proxied(place, "haproxy.cfg", house.url) as url:
            async with wire.dial(url) as stranger:
                assert (await stranger.handshake(wire.Identity("ghost")))["code"] == "unauthenticated"
            async with wire.dial(url) as worker:
                if told:
                    assert (await worker.handshake(who))["type"] == "welcome"
                else:
                    assert await worker.close_code() == 4429


@pytest.mark.parametrize("name", ENDS)
async def test_what_needs_no_credential_is_not_published(open_behind: Any, place: Place, name: str) -> None:
    """The API is reached through a proxy that ends TLS; probes and numbers are not, however their path is written."""
    ways = ("/metrics", "/healthz", "/readyz", "/openapi.json", "/%6detrics", "//metrics", "/v1/../metrics")
    async with (
        open_behind(**settings_for(name, place)) as house,
        proxied(place, name, house.url) as url,
        aiohttp.ClientSession() as http,
    ):
        for way in ways:
            async with http.get(yarl.URL(f"{url}{way}", encoded=True), ssl=False) as answer:
                assert answer.status in {403, 404}, way
        async with http.get(f"{url}/v1/status", ssl=False) as answer:
            assert answer.status == 401
