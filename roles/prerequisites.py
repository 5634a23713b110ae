"""What a host must be before anything is changed on it, and the CPU model against its topology (RT-1).

What one role alone needs stands in its room: `refusals` of roles/<role>/role.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from roles.catalogue import ROLES
from roles.host import HostConfig
from roles.mirror import mirror_refusals
from roles.shape import FleetView
from roles.shared import CPU, CpuSettings
from rtinfra.config import FleetHost, Problem
from rtinfra.cpu import CpuFinding, CpuLayout, resolve_layout
from rtinfra.facts.host import HostState

#: Before this moment (2025-01-01, in seconds since the epoch) a clock is certainly wrong: apt would call
#: every signature "not valid yet".
_EARLIEST_CLOCK = 1_735_689_600
_RT_CORES = 2


def check_layout(fleet_host: FleetHost[HostConfig], state: HostState) -> tuple[CpuLayout | None, list[Problem]]:
    """Hold one host against its settings, as far as they belong to no role.

    Returns the CPU layout (None when the host is not real-time, or its layout is refused) and everything that
    is wrong, errors and warnings, each with the file and line of the setting concerned.
    """
    problems = list(_general(fleet_host, state))
    cpu = fleet_host.config.get(CPU)
    if cpu is None:
        return None, problems
    layout, found = _cpu(fleet_host, cpu, state)
    return layout, [*problems, *found]


def check_roles(fleet_host: FleetHost[HostConfig], view: FleetView, state: HostState) -> list[Problem]:
    """Hold one host against what its roles need; `view` has its layout, and what the mirror serves."""
    found = [*mirror_refusals(view, state), *(found for role in ROLES for found in role.refusals_in(view, state))]
    return [fleet_host.cite(finding) for finding in found]


def _general(fleet_host: FleetHost[HostConfig], state: HostState) -> Iterator[Problem]:
    if not state.is_root:
        yield fleet_host.problem(
            "ssh.user", fleet_host.ssh.user, "is not root on this host", "name another user, with become: true below it"
        )
    if not state.has_systemd:
        yield fleet_host.problem("host", fleet_host.name, "does not run systemd", None)
    if state.clock < _EARLIEST_CLOCK:
        yield fleet_host.problem(
            "host",
            fleet_host.name,
            f"has a clock that says {state.clock} seconds since 1970, long ago",
            "set it: `date -s '2026-01-31 12:00'` on the host, then `hwclock --systohc`",
        )


def _few_cores(isolated: str, layout: CpuLayout) -> Iterator[CpuFinding]:
    """Warn of a single real-time core: RT-1 asks for two, and one is a choice not to make unawares."""
    if layout.topology.core_count(layout.isolated) < _RT_CORES:
        reason = f"isolates one core; {_RT_CORES} are what the application is made for (RT-1)"
        yield CpuFinding("warning", "cpu.isolated", isolated, reason, "isolate another core of the same NUMA node")


def _cpu(
    fleet_host: FleetHost[HostConfig], cpu: CpuSettings, state: HostState
) -> tuple[CpuLayout | None, list[Problem]]:
    if cpu.count is not None and cpu.count != len(state.topology.online):
        wrong = fleet_host.problem(
            "cpu.count",
            cpu.count,
            f"CPUs are expected, this host has {len(state.topology.online)} online",
            "correct the number, or find out where the CPUs went (`lscpu` on the host)",
        )
        return None, [wrong]
    layout, findings = resolve_layout(cpu.isolated, cpu.housekeeping, state.topology)
    if layout is not None:
        findings += _few_cores(cpu.isolated, layout)
    return layout, [fleet_host.cite(found) for found in findings]
