"""The command line of the preflight: the same on a host and as `rtinfra preflight`.

argparse, because on the host the whole process is to be done in less than a third of a second.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtinfra.local.errors import LocalError
from rtinfra.preflight.app import Options, preflight
from rtinfra.preflight.check import Secrets
from rtinfra.preflight.errors import PreflightError
from rtinfra.preflight.settings import PreflightSettings
from rtinfra.preflight.verdict import EXIT_NO_VERDICT

_DESCRIPTION = """\
Is this host ready for live operation? Checks variables, secrets, safety switches, Redis, PostgreSQL, other services,
the application, the deployed tree and the real-time state, all at once.

exit codes: 0 all passed, 1 passed with warnings, 2 not ready, 3 no verdict (settings or credentials are wrong)
"""


@dataclass(frozen=True)
class Defaults:
    """What differs between a host and the control machine: where settings and secrets come from."""

    program: str
    settings: Path
    load: Callable[[Path], PreflightSettings]
    secrets: Callable[[], Secrets]


def main(arguments: Sequence[str], defaults: Defaults) -> int:
    """Run, print the result, return the exit code."""
    given = _parser(defaults).parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    options = Options(
        metrics=not given.no_metrics,
        alerts=not given.no_alerts,
        state=given.state,
        json_path=given.output_json,
        prom_path=given.output_prom,
        host=given.host,
    )
    try:
        report = preflight(defaults.load(given.settings), defaults.secrets(), options)
    except LocalError as error:
        print(error, file=sys.stderr)
        return EXIT_NO_VERDICT
    except Exception:
        # Python would end with 1, which says "passed with warnings" here.
        traceback.print_exc()
        return EXIT_NO_VERDICT
    print(json.dumps(report.to_json(), indent=1, ensure_ascii=False) if given.json else report.table())
    return report.exit_code


def start(defaults: Defaults) -> None:
    """Run as a program of its own. A check that overstayed has a thread left: the process ends without waiting."""
    # It is over before there would be anything to collect; looking for that while libraries load costs a tenth.
    gc.disable()
    code = main(sys.argv[1:], defaults)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def load_json(path: Path) -> PreflightSettings:
    """Return the settings of a host's file.

    Raises:
        PreflightError: there is none, or it is wrong.
    """
    try:
        return PreflightSettings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PreflightError(
            f"the settings {path} cannot be read: {error.strerror}", "run the deploy, or name others with --settings"
        ) from None
    except ValueError as error:
        raise PreflightError(f"the settings {path} are wrong", "run the deploy again", str(error)) from None


def _parser(defaults: Defaults) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=defaults.program, description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--settings", type=Path, default=defaults.settings, metavar="FILE", help="default: %(default)s")
    add("--json", action="store_true", help="print the report as JSON instead of a table")
    add("--output-json", type=Path, metavar="FILE", help="also write the report as JSON here")
    add("--output-prom", type=Path, metavar="FILE", help="write the metrics here, not into the textfile directory")
    add("--state", type=Path, metavar="DIR", help="where counts and evidence are kept, in place of the settings' one")
    add("--host", metavar="NAME", help="name of this host in reports and messages")
    add("--no-metrics", action="store_true", help="do not count this run and write no metrics")
    add("--no-alerts", action="store_true", help="tell nobody")
    return parser
