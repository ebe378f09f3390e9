"""What every test run shares: leaving tests out is said loudly, and is a failure where CI runs them."""

from __future__ import annotations

import os

import pytest

pytest.register_assert_rewrite("storage.conformance", "kms.conformance")


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
