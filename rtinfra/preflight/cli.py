"""`rtinfra preflight`: the preflight of this computer, with the settings of the project."""

from __future__ import annotations

from pathlib import Path

import typer

from roles.preflight.model import PreflightSettings as RoleSettings
from roles.shared import ENVIRONMENTS, TELEMETRY, TEXTFILE_DIRECTORY
from rtinfra.config.explain import explain
from rtinfra.config.problems import ConfigError
from rtinfra.config.yaml import load_yaml
from rtinfra.paths import PROJECT
from rtinfra.preflight.errors import PreflightError
from rtinfra.preflight.main import Defaults, load_json, main
from rtinfra.preflight.settings import PreflightSettings
from rtinfra.secrets import operator_secrets

SETTINGS = PROJECT / "group_data" / "preflight.yaml"
_SECTION = "preflight"


app = typer.Typer()
# Its options are those of the program on the hosts, which has a parser of its own.
_FORWARDED = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=_FORWARDED)
def preflight(context: typer.Context) -> None:
    """Check whether this computer is ready for live operation; on hosts a timer does it. `--help` lists the options.

    Exit 0: all passed, 1: with warnings, 2: not ready, 3: no verdict.

    Examples:

        rtinfra preflight --no-alerts --state /tmp/preflight --output-prom /tmp/preflight.prom

        rtinfra preflight --settings group_data/preflight.yaml --json
    """
    defaults = Defaults("rtinfra preflight", SETTINGS, load, operator_secrets)
    raise typer.Exit(main(context.args, defaults))


def load(path: Path) -> PreflightSettings:
    """Return the settings of a YAML file with a section `preflight:`, or of a host's settings.json.

    Raises:
        PreflightError: there is no such file, or something in it is wrong.
    """
    if path.suffix == ".json":
        return load_json(path)
    if not path.is_file():
        raise PreflightError(f"there is no file {path}", "name the file with --settings")
    section = _section(path, _SECTION)
    if section is None:
        raise PreflightError(f"{path} has no section {_SECTION}", "compare it with group_data/preflight.yaml")
    try:
        settings = RoleSettings.model_validate(section)
        environment = settings.environment or settings.environment_in(_telemetry_environment(path))
        return settings.on_host(environment, TEXTFILE_DIRECTORY, None, None, None)
    except ValueError as error:
        found = explain(error, RoleSettings, section, _SECTION)  # type: ignore[arg-type]
        reasons = "\n".join(f"{one.key}: {one.reason}" for one in found)
        raise PreflightError(f"the settings {path} are wrong", "correct them", reasons) from None


def _telemetry_environment(path: Path) -> str:
    """Return what `telemetry.environment` is for all hosts, which null follows; raises PreflightError."""
    shared = path.with_name("all.yaml")
    telemetry = _section(shared, TELEMETRY.name) if shared.is_file() else None
    found = telemetry.get("environment") if isinstance(telemetry, dict) else None
    if found not in ENVIRONMENTS:
        raise PreflightError(
            f"{path} leaves {_SECTION}.environment to telemetry.environment, which {shared} does not have",
            f"set {_SECTION}.environment to paper, staging or prod",
        )
    return str(found)


def _section(path: Path, name: str) -> object:
    try:
        tree = load_yaml(path, str(path)).plain()
    except ConfigError as error:
        raise PreflightError(f"the settings {path} are wrong", "correct them", str(error)) from None
    return tree.get(name) if isinstance(tree, dict) else None
