"""What is kept of every run: its report as JSON, and the metrics as they were then."""

from __future__ import annotations

import json
from pathlib import Path

from rtinfra.local.files import replace_file
from rtinfra.preflight.verdict import Report


def name_of(report: Report) -> str:
    """Return the name of a run's files without their ending; names sort by time."""
    return f"{report.started:%Y%m%dT%H%M%S.%fZ}-{report.environment}-{report.id}"


def write_json(path: Path, report: Report) -> None:
    """Write the report, atomically and for good."""
    replace_file(path, (json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n").encode(), mode=0o640)


def prune(directory: Path, keep: int) -> None:
    """Remove the oldest files until `keep` runs are left."""
    runs = sorted({path.stem for path in directory.glob("*.json")})
    for run in runs[:-keep]:
        for ending in (".json", ".prom"):
            directory.joinpath(f"{run}{ending}").unlink(missing_ok=True)
