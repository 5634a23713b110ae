"""What the operator writes, loaded, merged and checked: every error with its file, line and a suggestion."""

from rtinfra.config.fleet import Fleet, FleetHost, SshSettings, load_fleet
from rtinfra.config.problems import ABSENT, ConfigError, CrossCheckError, Finding, Problem, report_findings

__all__ = [
    "ABSENT",
    "ConfigError",
    "CrossCheckError",
    "Finding",
    "Fleet",
    "FleetHost",
    "Problem",
    "SshSettings",
    "load_fleet",
    "report_findings",
]
