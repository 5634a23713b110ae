"""The lab host's controls and their verdicts as data (controls.yaml): what a verification has to end with, exactly.

A control that turns N/A, or is not collected any more, has stopped to look; nothing else would tell. After an intended
change, of controls or of the lab host:

    pytest tests/e2e ... --update-controls              from the run itself
    python -m tests.e2e.verdicts REPORT.json [HOST]     from a report of `rtinfra verify --disruptive`
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import yaml

from rtinfra.verify.report import ControlResult, Status, read

CONTROLS: Final = Path(__file__).with_name("controls.yaml")
_NOWHERE: Final = "not there"
_HEADER: Final = """\
# What each control ends with on the lab host of the end-to-end scenarios, those that kill and measure included: PASS,
# MEASURED, or N/A with its reason. tests/e2e/test_3_compliance.py wants exactly this; see verdicts.py for updating.
# A list holds what may differ between two runs of an emulated machine; * stands for any text.
"""

Verdicts = Mapping[str, tuple[str, ...]]


def verdict(result: ControlResult) -> str:
    """Return a control's verdict in one line; the reason belongs to it where the control does not apply."""
    if result.status is Status.NOT_APPLICABLE:
        return f"{result.status}: {result.note}"
    return str(result.status)


def load(path: Path = CONTROLS) -> Verdicts:
    """Read the verdicts that a control may end with, by its id."""
    document: Mapping[str, str | list[str]] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return {control: (it,) if isinstance(it, str) else tuple(it) for control, it in document.items()}


def differences(expected: Verdicts, results: Iterable[ControlResult]) -> list[str]:
    """Return one line for each control that is missing, new, or ended in another way."""
    found = {result.control: result for result in results}
    lines = []
    for control in sorted({*expected, *found}, key=_order):
        allowed, result = expected.get(control, ()), found.get(control)
        actual = verdict(result) if result else _NOWHERE
        if result is None or not any(fnmatchcase(actual, pattern) for pattern in allowed):
            title = f" ({result.title})" if result else ""
            lines.append(f"{control}{title}: expected {' or '.join(allowed) or _NOWHERE}, found {actual}")
    return lines


def text(expected: Verdicts, results: Iterable[ControlResult]) -> str:
    """Return the file for these results; a verdict that was allowed already keeps what may stand in its place."""
    lines = []
    for result in sorted(results, key=lambda result: _order(result.control)):
        actual, allowed = verdict(result), expected.get(result.control, ())
        kept = allowed if any(fnmatchcase(actual, pattern) for pattern in allowed) else (actual,)
        value = yaml.safe_dump(kept[0] if len(kept) == 1 else list(kept), default_flow_style=True, width=10_000)
        lines.append(f"{result.control}: {value.removesuffix('...' + chr(10)).strip()}\n")
    return _HEADER + "".join(lines)


def update(results: Iterable[ControlResult], path: Path = CONTROLS) -> None:
    """Make the file say what these results say."""
    path.write_text(text(load(path) if path.exists() else {}, results), encoding="utf-8")


def _order(control: str) -> tuple[str | int, ...]:
    """RT-9.10 comes after RT-9.9."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"[-.]", control))


def main() -> None:
    """Update the file from a report."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.verdicts", description="update controls.yaml")
    parser.add_argument("report", type=Path)
    parser.add_argument("host", nargs="?", help="which host of the report; needed when it has several")
    arguments = parser.parse_args()
    report = read(arguments.report)
    hosts = sorted({result.host for result in report.results})
    if arguments.host is None and len(hosts) != 1:
        parser.error(f"say which host: {', '.join(hosts)}")
    if not report.disruptive or report.failed:
        parser.error("the report has to hold all controls, and none that failed: `rtinfra verify --disruptive`")
    update(result for result in report.results if result.host == (arguments.host or hosts[0]))


if __name__ == "__main__":
    main()
