"""Skips that are meant, each with its reason, in one table. Any other one fails the run: not tested is not green.

The controls of hosts (tests/compliance) are left alone: there a skip is the verdict "not applicable", which has its own
account.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Meant:
    """A skip that is meant: where, with which words, and why it hides nothing."""

    tests: str
    """What the node ids begin with."""
    words: str
    """The whole reason that the test gives, as a regular expression."""
    why: str


MEANT: Sequence[Meant] = (
    Meant("tests/e2e/", "takes many minutes; `make test-all` runs it", "`make test-all` has no such skip"),
    Meant(
        "tests/offline/test_1_install.py",
        "needs root, to enter a bare system",
        "the lab works without root; continuous integration, and whoever is root, runs it",
    ),
    Meant(
        "tests/native/",
        "needs root, to make network namespaces",
        "the lab works without root; continuous integration, and whoever is root, runs it",
    ),
    Meant(
        "tests/integration/test_packet_filter.py",
        "needs root, to make network namespaces",
        "the lab works without root; continuous integration, and whoever is root, runs it",
    ),
    Meant(
        "tests/unit/test_workload.py",
        "kernel without NUMA",
        "a property of this computer's kernel; the lab machine has two nodes, and RT-5.* look at them there",
    ),
    Meant(
        "tests/unit/test_workload.py",
        r"kernel older than 6\.3",
        "a property of this computer's kernel; on the lab machine the unit itself has MemoryDenyWriteExecute",
    ),
    Meant(
        "tests/unit/test_images_build.py",
        "Go is a package of this computer",
        "Go cannot be hidden in /usr/bin; continuous integration has it elsewhere",
    ),
)


def unnamed(nodeid: str, reason: str) -> bool:
    """Whether nobody has said that this skip is meant."""
    if nodeid.startswith("tests/compliance/"):
        return False
    return not any(nodeid.startswith(skip.tests) and re.fullmatch(skip.words, reason) for skip in MEANT)


class Skips:
    """The plugin for pytest that fails a run with a skip that nobody named."""

    def __init__(self) -> None:
        self._unnamed: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._look(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._look(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self._unnamed and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._unnamed:
            terminalreporter.section("skipped, and not named in tests/skips.py: the run fails", red=True)
            for nodeid, reason in self._unnamed.items():
                terminalreporter.write_line(f"{nodeid}: {reason}")

    def _look(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            _, _, words = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, str(report.longrepr))
            reason = words.removeprefix("Skipped: ")
            if unnamed(report.nodeid, reason):
                self._unnamed[report.nodeid] = reason
