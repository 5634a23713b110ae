"""What the operator writes, loaded, merged and checked: every error with its file, line and a suggestion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtinfra.config.loader import Fleet, FleetHost, SshSettings, load_fleet
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

_LOADER = frozenset(("Fleet", "FleetHost", "SshSettings", "load_fleet"))


def __getattr__(name: str) -> Any:
    """Load a name when it is first asked for: who only needs `rtinfra.config.types` pays for no YAML parser."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{'loader' if name in _LOADER else 'problems'}"), name)
