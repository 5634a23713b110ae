"""Runs the compliance tests in a process of their own and returns what they found."""

from __future__ import annotations

import os
import subprocess  # nosec B404 - our own interpreter, with an argument list
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from rtinfra.paths import PROJECT
from rtinfra.verify.report import Report, read

TESTS: Final = PROJECT / "tests" / "compliance"
REPORTS: Final = PROJECT / "reports"
_LAST_LINES = 15


class VerifyError(Exception):
    """A verification that could not even begin; the text says why."""


def run(
    inventory: Path,
    *,
    hosts: Sequence[str] = (),
    controls: Sequence[str] = (),
    disruptive: bool = False,
    output: Path = REPORTS,
    latency_seconds: int = 10,
    tests: Path = TESTS,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Verify the hosts of an inventory.

    Args:
        inventory: file or directory.
        hosts: only these; empty for all.
        controls: only these ids or requirements, for example `RT-10.1` or `RT-12`; empty for all.
        disruptive: also run what kills and restarts things on the hosts.
        output: folder in which a folder named after the time is made, and a link `latest` to it.
        latency_seconds: how long latency is measured.
        tests: folder of the tests.
        progress: called with a short text at every step.

    Raises:
        VerifyError: wrong configuration, host or control, or tests that cannot be loaded.
    """
    directory = _new_directory(output)
    report_file = directory / "report.json"
    reader, writer = os.pipe()
    command = [
        *(sys.executable, "-m", "pytest", str(tests), "-p", "rtinfra.verify.plugin"),
        *("--rootdir", str(PROJECT), "-c", str(PROJECT / "pyproject.toml"), "-p", "no:cacheprovider"),
        *("--inventory", str(inventory), "--report-json", str(report_file), "--evidence", str(directory)),
        *("--junitxml", str(directory / "junit.xml"), "-o", "junit_suite_name=rtinfra"),
        *("--latency-seconds", str(latency_seconds), "--progress-fd", str(writer), "--tb=short"),
        *(["--disruptive"] if disruptive else []),
        *(word for name in hosts for word in ("--host", name)),
        *(word for name in controls for word in ("--control", name)),
    ]
    log = directory / "pytest.log"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}
    with log.open("wb") as sink:
        process = subprocess.Popen(  # nosec B603
            command, stdout=sink, stderr=subprocess.STDOUT, pass_fds=(writer,), cwd=PROJECT, env=environment
        )
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as steps:
            for step in steps:
                if progress is not None:
                    progress(step.strip())
        process.wait()
    if not report_file.is_file():
        raise VerifyError(_why(log))
    report = replace(read(report_file), directory=directory)
    if not report.results and not report.problems and controls:
        raise VerifyError(f"there is no control {', '.join(controls)}; `rtinfra verify --json` lists them all")
    return report


def _new_directory(output: Path) -> Path:
    """Make the folder of this run and point `latest` at it."""
    output = output.resolve()
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    number = 0
    while True:
        directory = output / (f"{stamp}-{number}" if number else stamp)
        try:
            directory.mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
    latest = output / "latest"
    # By rename, so that whoever reads `latest` meanwhile finds the old or the new one.
    temporary = output / f".latest-{directory.name}"
    with suppress(OSError):
        temporary.symlink_to(directory.name)
        temporary.replace(latest)
    return directory


def _why(log: Path) -> str:
    """Return what pytest said when it could not start: its own error lines, or the end of its output."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if errors:
        first = next(index for index, line in enumerate(lines) if line.startswith("ERROR: "))
        return "\n".join([errors[0], *(line for line in lines[first + 1 :] if line.strip())])
    return "the compliance tests could not be started:\n" + "\n".join(lines[-_LAST_LINES:])
