"""What every test run shares: leaving tests out is said loudly, and is a failure where CI runs them."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.register_assert_rewrite("storage.conformance", "kms.conformance")


def _part(name: str) -> ModuleType:
    """A module of tests/parts: a real server, or what stands between it and us. Tests are no package, hence by path."""
    known = f"parts_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, Path(__file__).with_name("parts") / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[known] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


@pytest.fixture(scope="session")
def moto() -> Iterator[Any]:
    """A running moto server (`parts/moto.py`), for the whole run."""
    with _part("moto").serving() as server:
        yield server


@pytest.fixture(scope="session")
def moto_servers() -> ModuleType:
    """The module `parts/moto.py`: servers of a test's own, such as one that checks signatures and policies."""
    return _part("moto")


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials where AWS SDKs look for them, child processes too, and nothing else of AWS or of a proxy."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLEONLY00000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for-tests-only")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture(scope="session")
def bao() -> Iterator[Any]:
    """A running OpenBao server (`parts/bao.py`), for the whole run."""
    with _part("bao").serving() as server:
        yield server


@pytest.fixture(scope="session")
def bao_servers() -> ModuleType:
    """The module `parts/bao.py`: OpenBao servers of a test's own, to be sealed, killed, or reached over TLS."""
    return _part("bao")


@pytest.fixture(scope="session")
def transit_standin() -> ModuleType:
    """The module `parts/transit_standin.py`: answers as no OpenBao server can be made to answer."""
    return _part("transit_standin")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A running PostgreSQL server (`parts/postgres.py`), for the whole run."""
    part = _part("postgres")
    if part.programs() is None:
        pytest.skip("Debian's package postgresql is not installed")
    with part.serving() as server:
        yield server


@pytest.fixture(scope="session")
def aws_standin() -> ModuleType:
    """The module `parts/aws_standin.py`: AWS KMS and STS as moto does not play them, with faults on demand."""
    return _part("aws_standin")


@pytest.fixture(scope="session")
def gcp_standin() -> ModuleType:
    """The module `parts/gcp_standin.py`: Google Cloud KMS and its login, with faults on demand."""
    return _part("gcp_standin")


@pytest.fixture(scope="session")
def azure_standin() -> ModuleType:
    """The module `parts/azure_standin.py`: Azure Key Vault and a sign-in, with faults on demand."""
    return _part("azure_standin")


@pytest.fixture(scope="session")
def softhsm() -> Iterator[Any]:
    """SoftHSM2 with a token folder of its own (`parts/softhsm.py`), for the whole run."""
    with _part("softhsm").serving() as hsm:
        yield hsm


@pytest.fixture
def postgres_of_its_own() -> Iterator[Any]:
    """A PostgreSQL server that one test may stop and start."""
    part = _part("postgres")
    if part.programs() is None:
        pytest.skip("Debian's package postgresql is not installed")
    with part.serving() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_servers() -> ModuleType:
    """The module `parts/postgres.py`: servers of a test's own, with settings, a standby, or over TLS."""
    part = _part("postgres")
    if part.programs() is None:
        pytest.skip("Debian's package postgresql is not installed")
    return part


@pytest.fixture(scope="session")
def poolers() -> ModuleType:
    """The module `parts/pgbouncer.py`: PgBouncer before a PostgreSQL server."""
    part = _part("pgbouncer")
    if part.program() is None:
        pytest.skip("Debian's package pgbouncer is not installed")
    return part


@pytest.fixture(scope="session")
def proxies() -> ModuleType:
    """The module `parts/proxy.py`: an HTTP proxy that counts, and fails on demand."""
    return _part("proxy")


@pytest.fixture(scope="session")
def oauth2_standin() -> ModuleType:
    """The module `parts/oauth2_standin.py`: an authorization server and an API behind it, with faults on demand."""
    return _part("oauth2_standin")


@pytest.fixture(scope="session")
def webhook_receiver() -> ModuleType:
    """The module `parts/webhook_receiver.py`: a service that rotates when it is told to by a signed call."""
    return _part("webhook_receiver")


@pytest.fixture(scope="session")
def tcp_proxies() -> ModuleType:
    """The module `parts/tcp_proxy.py`: a network that can be cut, frozen and pointed elsewhere."""
    return _part("tcp_proxy")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was left out, and why, where nobody can miss it."""
    left_out = terminalreporter.stats.get("skipped", [])
    if not left_out:
        terminalreporter.write_line("left out: no test")
        return
    terminalreporter.write_sep("!", f"LEFT OUT: {len(left_out)} tests", red=True)
    for report in left_out:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.write_line(f"LEFT OUT {report.nodeid}: {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a test that was left out is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and exitstatus == 0 and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
