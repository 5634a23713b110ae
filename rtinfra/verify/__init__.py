"""Verification of running hosts: what the kernel and systemd say, held against the typed settings."""

from rtinfra.verify.report import ControlResult, HostFacts, HostProblem, Report, Severity, Status
from rtinfra.verify.verification import VerifyError, run

__all__ = [
    "ControlResult",
    "HostFacts",
    "HostProblem",
    "Report",
    "Severity",
    "Status",
    "VerifyError",
    "run",
]
