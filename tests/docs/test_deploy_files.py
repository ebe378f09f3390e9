"""Files in config/deploy: each is read, and names only what the broker has: commands, settings, paths, ports, times."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import typer
import yaml
from typer.core import TyperGroup
from typer.main import get_command

from broker.api.probes import CHECK_S
from broker.cli.main import app
from broker.settings import Server, Settings, read_settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "config" / "deploy"
PAGE = ROOT / "docs" / "howto" / "deploy.md"
MANIFESTS = sorted((DEPLOY / "kubernetes").rglob("*.yaml"))
DRAINED_S = 15
"""What a stop may take beyond server.drain: docs/howto/production.md."""


def seconds(field: str) -> float:
    default = Server.model_fields[field].default
    return float(default.total_seconds())


def check_command(words: list[str]) -> None:
    """Fail unless the command's line has options and a command that `tokenbroker` has."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    command = root.get_command(typer.Context(root), words[0])
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words[1:] if word.startswith("--")} <= known


class Unit:
    """A systemd unit; a key may stand in it several times."""

    def __init__(self, *files: Path) -> None:
        self.values: dict[str, list[str]] = {}
        for line in (line for file in files for line in file.read_text(encoding="utf-8").splitlines()):
            name, sign, value = line.partition("=")
            if sign and not line.startswith("#"):
                self.values.setdefault(name, []).append(value)

    def one(self, name: str) -> str:
        (value,) = self.values[name]
        return value

    def seconds(self, name: str) -> float:
        return float(self.one(name).removesuffix("s"))


SERVICE = DEPLOY / "systemd" / "tokenbroker.service"
CREDENTIALS = DEPLOY / "systemd" / "tokenbroker.service.d" / "credentials.conf"


def test_the_unit_starts_a_command_that_is_there_and_gives_it_time() -> None:
    """Its command line is the broker's own, and it waits for a drain before it kills."""
    unit = Unit(SERVICE)
    program, *words = unit.one("ExecStart").split()
    assert program.endswith("/bin/tokenbroker")
    check_command(words)
    assert unit.one("ExecReload") == "/bin/kill -HUP $MAINPID"
    assert unit.seconds("TimeoutStopSec") >= seconds("drain") + DRAINED_S
    assert unit.one("Type") == "notify"
    assert (unit.one("LimitCORE"), unit.one("MemorySwapMax")) == ("0", "0")


def test_what_the_unit_gives_a_secret_is_where_the_configuration_looks_for_it() -> None:
    """The drop-in copies each credential into the folder that the unit makes, under the name that its comment shows."""
    unit, text = Unit(SERVICE, CREDENTIALS), CREDENTIALS.read_text(encoding="utf-8")
    names = [value.partition(":")[0] for value in unit.values["LoadCredentialEncrypted"]]
    copied = re.findall(r"%d/(\w+)", unit.one("ExecStartPre"))
    assert names == copied
    assert f"%t/{unit.one('RuntimeDirectory')} " in unit.one("ExecStartPre")
    assert "--mode=0400" in unit.one("ExecStartPre")
    (keys,) = re.findall(r"^#\s+(keys = .*)$", text, flags=re.MULTILINE)
    settings = read_settings({"kms": tomllib.loads(keys)}, {}, where="the drop-in")
    assert f"passphrase-file=/run/{unit.one('RuntimeDirectory')}/{names[0]}" in settings.kms.keys[0]


def test_systemd_takes_the_unit_and_finds_it_confined(tmp_path: Path) -> None:
    """systemd knows every line of it, and its own measure of what the service could do to the machine stays below 2."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("Debian's package systemd is not installed")
    here = tmp_path / SERVICE.name
    text = SERVICE.read_text(encoding="utf-8")
    here.write_text(re.sub(r"(?<=ExecStart=)\S+", sys.executable, text), encoding="utf-8")
    for arguments in (["verify", "--man=no"], ["security", "--offline=true", "--threshold=20"]):
        done = subprocess.run([analyze, *arguments, str(here)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert str(here) not in done.stderr, done.stderr


class Containerfile:
    """The instructions of the container file, in order, each with its words."""

    def __init__(self) -> None:
        text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
        lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
        self.all = [(line.split()[0], line.split()[1:]) for line in lines if line]
        self.last = self.all[max(at for at, (name, _) in enumerate(self.all) if name == "FROM") :]

    def of(self, name: str) -> list[str]:
        """The words of the one such instruction of the last stage."""
        (words,) = [words for each, words in self.last if each == name]
        return words


def test_the_image_serves_as_nobody_special() -> None:
    """The last stage runs the broker's own command as a numbered user, and is stopped by what drains it."""
    file = Containerfile()
    check_command(re.findall(r'"([^"]+)"', " ".join(file.of("CMD"))))
    assert all(number.isdecimal() and int(number) > 0 for number in file.of("USER")[0].split(":"))
    assert file.of("STOPSIGNAL") == ["SIGTERM"]
    assert file.of("EXPOSE") == [Settings().server.listen.rpartition(":")[2]]
    assert not any("pip" in words for name, words in file.last if name == "RUN")


def test_the_image_is_made_of_what_the_constraints_name() -> None:
    """Everything is fetched once, against its hash; what is installed comes from there, and from sources that exist."""
    runs = [words for name, words in Containerfile().all if name == "RUN"]
    (fetching,) = [words for words in runs if "download" in words]
    assert {"--require-hashes", "--only-binary", "/src/constraints.txt"} <= set(fetching)
    (installing,) = [words for words in runs if "install" in words]
    assert {"--no-index", "--find-links"} <= set(installing)
    for name, words in Containerfile().all:
        if name == "COPY" and not words[0].startswith("--from"):
            assert all((ROOT / source).exists() for source in words[:-1]), words
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    copied = {word for name, words in Containerfile().all if name == "COPY" for word in words}
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= copied
    assert "all" in project["project"]["optional-dependencies"]


def documents() -> Iterator[Any]:
    for file in MANIFESTS:
        yield from yaml.safe_load_all(file.read_text(encoding="utf-8"))


def manifest(kind: str, name: str = "tokenbroker") -> Any:
    (found,) = [each for each in documents() if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def broker_pod() -> tuple[Any, Any]:
    """The pod of the StatefulSet, and its container."""
    pod = manifest("StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def test_pods_run_a_command_and_settings_that_are_there() -> None:
    """Arguments are the broker's, variables are its settings, and the instance is the pod's lasting name."""
    _, container = broker_pod()
    check_command(container["args"])
    environment = {each["name"]: each["valueFrom"] for each in container["env"]}
    assert environment["TOKENBROKER_SERVER__INSTANCE"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    ours = {name: "tokenbroker-0" for name in environment if name.startswith("TOKENBROKER_")}
    assert read_settings({}, ours, where="the pod").instance == "tokenbroker-0"
    assert "PGPASSWORD" in environment


def test_pods_are_given_time_to_drain() -> None:
    """Kubernetes waits for preStop, the drain and the end of the log before it kills."""
    pod, container = broker_pod()
    program, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert pod["terminationGracePeriodSeconds"] >= int(pause) + seconds("drain") + DRAINED_S


async def test_probes_ask_what_the_broker_answers(served: Any) -> None:
    """Paths of probes exist; only readiness asks for readiness, with more time than its checks take."""
    _, container = broker_pod()
    probes = {name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["httpGet"]["path"] for name, probe in probes.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    async with aiohttp.ClientSession() as http:
        for probe in probes.values():
            async with http.get(f"{served.url}{probe['httpGet']['path']}") as answer:
                assert answer.status == 200
        for endpoint in manifest("ServiceMonitor")["spec"]["endpoints"]:
            async with http.get(f"{served.url}{endpoint['path']}") as answer:
                assert answer.status == 200
    assert probes["readiness"]["timeoutSeconds"] > CHECK_S


def test_pods_can_do_nothing_but_serve() -> None:
    """No root, no capability, no writable system, no token of the cluster."""
    pod, container = broker_pod()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == int(Containerfile().of("USER")[0].partition(":")[0])
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    mounts = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert mounts == {"/tmp"}


def test_manifests_fit_together() -> None:
    """Selectors select the pods, ports are the broker's, names lead to each other, and every volume is mounted."""
    stateful = manifest("StatefulSet")["spec"]
    labels = stateful["template"]["metadata"]["labels"]
    pod, container = broker_pod()
    port = int(Settings().server.listen.rpartition(":")[2])
    (exposed,) = container["ports"]
    assert exposed["containerPort"] == port
    assert stateful["serviceName"] == manifest("Service", "tokenbroker-replicas")["metadata"]["name"]
    assert pod["serviceAccountName"] == manifest("ServiceAccount")["metadata"]["name"]
    budget = manifest("PodDisruptionBudget")["spec"]
    policy = manifest("NetworkPolicy")["spec"]
    services = [manifest("Service"), manifest("Service", "tokenbroker-replicas")]
    selectors = [
        stateful["selector"]["matchLabels"],
        budget["selector"]["matchLabels"],
        policy["podSelector"]["matchLabels"],
        *(service["spec"]["selector"] for service in services),
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    assert {each["targetPort"] for service in services for each in service["spec"]["ports"]} == {exposed["name"]}
    assert {each["port"] for rule in policy["ingress"] for each in rule["ports"]} == {port}
    assert {each["port"] for rule in policy["egress"] for each in rule["ports"]} == {53, 443, 5432}
    monitor = manifest("ServiceMonitor")["spec"]
    replicas = services[1]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= replicas.items()
    assert replicas[monitor["jobLabel"]] == "tokenbroker"  # as the alerts have it
    assert {each["name"] for each in pod["volumes"]} == {each["name"] for each in container["volumeMounts"]}


def test_the_alerts_watch_the_job_that_is_scraped() -> None:
    """The job's name in the alerts is the one that the manifests give."""
    alerts = (ROOT / "config" / "alerts" / "prometheus.yml").read_text(encoding="utf-8")
    assert set(re.findall(r'job="([^"]+)"', alerts)) == {"tokenbroker"}


@pytest.mark.parametrize("file", sorted((DEPLOY / "proxies").iterdir()), ids=lambda file: file.name)
def test_proxies_wait_longer_than_a_heartbeat(file: Path) -> None:
    """An idle worker is heard of each heartbeat; a proxy waits for three of them at least, and for a slow check."""
    text = file.read_text(encoding="utf-8")
    waits = dict(re.findall(r"^\s*(timeout tunnel|timeout check|proxy_\w+_timeout) (\d+)s", text, flags=re.MULTILINE))
    idle = [
        int(wait)
        for name, wait in waits.items()
        if name in {"timeout tunnel", "proxy_read_timeout", "proxy_send_timeout"}
    ]
    assert idle
    assert min(idle) >= 3 * seconds("heartbeat")
    assert "timeout check" not in waits or int(waits["timeout check"]) > CHECK_S
    if "haproxy" in file.name:
        assert "GET uri /readyz" in text
        assert "shutdown-sessions" not in text
    port = Settings().server.listen.rpartition(":")[2]
    assert set(re.findall(r"10\.0\.0\.\d+:(\d+)", text)) == {port}


@pytest.mark.parametrize("block", re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S))
def test_settings_on_the_page_are_settings(block: str) -> None:
    """Every configuration that the page shows is one."""
    read_settings(tomllib.loads(block), {}, where="the page")


def test_every_file_is_on_the_page() -> None:
    """The page names each file of the folder, and no other."""
    named = set(re.findall(r"config/deploy/([\w./-]+\w)", PAGE.read_text(encoding="utf-8")))
    files = {str(file.relative_to(DEPLOY)) for file in DEPLOY.rglob("*") if file.is_file()}
    folders = {str(file.relative_to(DEPLOY)) for file in DEPLOY.rglob("*") if file.is_dir()}
    assert files <= named
    assert named <= files | folders
