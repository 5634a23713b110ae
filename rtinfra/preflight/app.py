"""One preflight run from beginning to end: check, count, keep, tell."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rtinfra.local.errors import LocalError
from rtinfra.preflight import counts, evidence
from rtinfra.preflight.check import Check, Context, Result, Secrets, Status
from rtinfra.preflight.checks import all_checks
from rtinfra.preflight.errors import PreflightError
from rtinfra.preflight.parallel import Outcome, run_checks
from rtinfra.preflight.settings import PreflightSettings
from rtinfra.preflight.verdict import Report

if TYPE_CHECKING:
    from rtinfra.notify.message import Notification

TEXTFILE = "rtinfra_preflight.prom"
#: Pages in docs/runbooks.
RUNBOOKS = {Status.FAIL: "PreflightNotReady", Status.WARN: "PreflightWarns"}


@dataclass(frozen=True)
class Options:
    """Options of the command line.

    Attributes:
        metrics: count this run, and write the textfile.
        alerts: tell people when something is wrong.
        state: directory for counts, evidence and the throttle, in place of the settings' one.
        json_path: also write the report here.
        prom_path: write the metrics here, and not into the textfile directory.
        host: name of the host in reports and messages.
    """

    metrics: bool = True
    alerts: bool = True
    state: Path | None = None
    json_path: Path | None = None
    prom_path: Path | None = None
    host: str | None = None


def preflight(
    settings: PreflightSettings, secrets: Secrets, options: Options, variables: Mapping[str, str] = os.environ
) -> Report:
    """Run all checks and return the report; what it says has been counted, kept and told by then.

    Raises:
        PreflightError: the settings ask for no check: there would be nothing behind a "ready".
        NotifyError: a channel is configured and cannot be used; nothing was checked.
    """
    checks = all_checks(settings.checks)
    if not checks:
        raise PreflightError("the settings ask for no check", "name what must be well in `preflight.checks`")
    state = options.state or Path(str(settings.state_directory))
    # First: who is silent about a missing credential now would be silent about a failure later. Not loaded otherwise.
    notifier = None
    if options.alerts:
        from rtinfra.notify.notifier import Notifier

        notifier = Notifier(settings.notify, secrets, state)
    report = _checked(checks, settings, secrets, options, variables)
    report = _kept(report, settings, state, options)
    if notifier is not None and report.verdict is not Status.PASS:
        sent = notifier.notify(_notification(report, settings))
        report = replace(report, notifications=(sent.to_json(),))
        # A disk that does not take it has been told above.
        with contextlib.suppress(OSError, LocalError):
            _write_evidence(report, state, options)
    return report


def _checked(
    checks: Sequence[Check],
    settings: PreflightSettings,
    secrets: Secrets,
    options: Options,
    variables: Mapping[str, str],
) -> Report:
    context = Context(settings.environment, settings.timeout.seconds, secrets, variables)
    started, clock = datetime.now(UTC), time.monotonic()
    outcomes = run_checks(checks, context)
    text = json.dumps(settings.to_json(), sort_keys=True)
    return Report(
        id=uuid.uuid4().hex[:12],
        host=options.host or socket.gethostname(),
        environment=settings.environment,
        started=started,
        seconds=time.monotonic() - clock,
        settings_sha256=hashlib.sha256(text.encode()).hexdigest(),
        outcomes=outcomes,
    )


def _kept(report: Report, settings: PreflightSettings, state: Path, options: Options) -> Report:
    """Count and keep the run. That the disk does not take it is a finding like any other, and people must hear it."""
    textfile = options.prom_path or Path(str(settings.textfile_directory)) / TEXTFILE
    try:
        if options.metrics:
            if not textfile.parent.is_dir():
                raise FileNotFoundError(2, "there is no such directory", str(textfile.parent))
            copy = state / "evidence" / f"{evidence.name_of(report)}.prom"
            counts.record(report, state / "metrics.json", (textfile, copy), settings.namespace)
        _write_evidence(report, state, options)
        evidence.prune(state / "evidence", settings.evidence.keep)
    except (OSError, LocalError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error.message
        result = Result(
            Status.FAIL,
            f"results cannot be written: {reason}",
            "make room on the disk (`df -h`); deploy again when a directory is missing",
        )
        return replace(report, outcomes=(*report.outcomes, Outcome(Check("evidence", lambda _: result), result, 0.0)))
    return report


def _write_evidence(report: Report, state: Path, options: Options) -> None:
    paths = [state / "evidence" / f"{evidence.name_of(report)}.json"]
    if options.json_path is not None:
        paths.append(options.json_path)
    for path in paths:
        evidence.write_json(path, report)


def _notification(report: Report, settings: PreflightSettings) -> Notification:
    from rtinfra.notify.message import Notification, Priority, Problem

    failed = report.verdict is Status.FAIL
    worst = report.of(report.verdict)
    names = ", ".join(outcome.check.name for outcome in worst)
    where = f"{report.host} ({report.environment})"
    base = settings.notify.runbooks_url
    return Notification(
        priority=Priority.P0 if failed else Priority.P1,
        source="preflight",
        host=report.host,
        environment=report.environment,
        title=f"{where} is not ready for live: {names} failed" if failed else f"{where} has warnings: {names}",
        problems=tuple(
            Problem(
                f"{outcome.result.status.value} {outcome.check.name}", outcome.result.message, outcome.result.next_step
            )
            for outcome in (*report.of(Status.FAIL), *report.of(Status.WARN))
        ),
        runbook=f"{base}/{RUNBOOKS[report.verdict]}" if base else None,
        at=report.started,
    )
