"""Runs the compliance tests in a process of their own and returns what they found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from rtinfra.hosts import HostsError, fleet_in, inventory_file, selected
from rtinfra.local.errors import LocalError
from rtinfra.local.files import replace_file
from rtinfra.passwords import PASSWORDS
from rtinfra.paths import PROJECT
from rtinfra.verify import page, sealing, textfile
from rtinfra.verify.report import REPORT_FILE, Report, read, show

TESTS: Final = PROJECT / "tests" / "compliance"
REPORTS: Final = PROJECT / "reports"
_LAST_LINES = 15
_LOG = "pytest.log"


class VerifyError(Exception):
    """A verification that could not even begin; the text says why."""


def run(
    inventory: Path | None = None,
    *,
    hosts: Sequence[str] = (),
    controls: Sequence[str] = (),
    disruptive: bool = False,
    output: Path = REPORTS,
    latency_seconds: int = 10,
    waivers: Path | None = None,
    textfiles: Path | None = None,
    tests: Path = TESTS,
    console: Console | None = None,
) -> Report:
    """Verify the hosts of an inventory.

    Args:
        inventory: file or directory; None for `inventory/`, or the lab machine when there are no hosts in it.
        hosts: only these; empty for all.
        controls: only these ids or requirements, for example `RT-10.1` or `RT-12`; empty for all.
        disruptive: also run what kills and restarts things on the hosts.
        output: folder in which a folder named after the time is made, and a link `latest` to it.
        latency_seconds: how long latency is measured.
        waivers: file with the waivers; None for that of the project.
        textfiles: folder of a node_exporter's textfile collector on this computer, which gets the metrics too.
        tests: folder of the tests.
        console: where to show what is being done, and the table; None to stay silent.

    Raises:
        VerifyError: wrong configuration, host, control or waiver, no key to sign with, or tests that cannot be
            loaded.
    """
    try:
        place = inventory_file(inventory)
        # Of every host: a control follows what one sends to wherever that is kept.
        fleet = fleet_in(place)
        selected(fleet, hosts)
        key = sealing.signing_key()
        PASSWORDS.ask_early(fleet.hosts.values())
    except (HostsError, LocalError) as error:
        raise VerifyError(str(error)) from error
    if textfiles is not None and not textfiles.is_dir():
        raise VerifyError(f"there is no folder {textfiles} to put metrics into; is node_exporter on this computer?")
    directory = _new_directory(output)
    arguments = [
        *("--inventory", str(place), "--report-json", str(directory / REPORT_FILE), "--evidence", str(directory)),
        *("--junitxml", str(directory / "junit.xml"), "-o", "junit_suite_name=rtinfra"),
        *("--latency-seconds", str(latency_seconds)),
        *(["--waivers", str(waivers.absolute())] if waivers else []),
        *(["--disruptive"] if disruptive else []),
        *(word for name in hosts for word in ("--host", name)),
        *(word for name in controls for word in ("--control", name)),
    ]
    with console.status("starting") if console else nullcontext() as status:
        _run_pytest(
            tests, arguments, directory / _LOG, (lambda step: status.update(escape(step))) if status else _silent
        )
    if not (directory / REPORT_FILE).is_file():
        raise VerifyError(_why(directory / _LOG))
    report = replace(read(directory / REPORT_FILE), directory=directory)
    if not report.results and not report.problems and controls:
        raise VerifyError(f"no control {', '.join(controls)} is to be run here; those of RT-12 need --disruptive")
    replace_file(directory / page.FILE, page.render(report))
    replace_file(directory / textfile.FILE, textfile.text(report))
    if textfiles is not None:
        replace_file(textfiles / textfile.FILE, textfile.text(report))
    sealing.seal(directory, key)
    if console is not None:
        show(report, console)
    return report


def pytest_arguments(tests: Path) -> list[str]:
    """Return what makes pytest run `tests` the same way wherever it is started."""
    return [
        *(str(tests), "-p", "rtinfra.verify.plugin", "-p", "no:cacheprovider", "--tb=short"),
        # Comes along on a developer's machine and takes a second to say nothing.
        *("-p", "no:hypothesispytest"),
        *("--rootdir", str(PROJECT), "-c", str(PROJECT / "pyproject.toml")),
    ]


def _run_pytest(tests: Path, arguments: Sequence[str], log: Path, tell: Callable[[str], None]) -> None:
    """Run the tests in a process of their own, its output in `log`; passes on what it says it is doing."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        *pytest_arguments(tests),
        "--progress-fd",
        "3",
        "--password-fd",
        "4",
        *arguments,
    ]
    path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Descriptor 3 is the pipe, 4 has what was typed for sudo, everything else goes to the log. A pipe that Popen makes
    # and reads itself works with gevent too, which pyinfra's command line puts in place of `subprocess` and `os.close`.
    with subprocess.Popen(
        ["sh", "-c", 'exec "$@" 4<&0 3>&1 >"$0" 2>&1 </dev/null', str(log), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        # One that ended at once says why in its log.
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(PASSWORDS.handed_on())
        for step in process.stdout:
            tell(step.strip())


def _silent(_step: str) -> None:
    """Show nothing."""


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
