"""pytest plugin: prints each failure when it happens, and ends a test that hangs.

A run that is ended from outside prints no summary, so its log would not name what failed. A test
that exceeds `faulthandler_timeout` of pyproject.toml ends its worker after a traceback of all
threads; tests of the marker `long` have no limit.
"""

from __future__ import annotations

import faulthandler

import pytest


class EarlyFailures:
    """Prints the failures of all workers as they arrive."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            message = crash.message.partition("\n")[0] if crash else f"error in {report.when}"
            self._terminal.write_line(f"\nFAILED {report.nodeid}: {message[:200]}")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal and not hasattr(config, "workerinput"):
        config.pluginmanager.register(EarlyFailures(terminal))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("long"):
        faulthandler.cancel_dump_traceback_later()
