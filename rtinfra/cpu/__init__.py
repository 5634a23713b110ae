"""The one CPU model: lists in kernel grammar, masks, topology, and the split into isolated and housekeeping.

Everything that names CPUs on a host derives from one `CpuLayout`: kernel command line, interrupt masks,
slices, units and the application's files. The kernel itself only warns about a bad list and then drops the
whole setting, so every list is expanded here against the CPUs the host really has, refused when it does not
fit, and written out as an explicit list without `N`, `all` or groups.
"""

from __future__ import annotations

from rtinfra.cpu.layout import (
    HOUSEKEEPING_KEY,
    ISOLATED_KEY,
    MIN_HOUSEKEEPING_CORES,
    CpuFinding,
    CpuLayout,
    Severity,
    check_layout_offline,
    check_node_binding,
    resolve_layout,
    stand_in_layout,
)
from rtinfra.cpu.lists import (
    MAX_CPUS,
    CpuListError,
    NeedsTopology,
    cpu_mask,
    format_cpu_list,
    format_cpu_mask,
    parse_cpu_list,
    parse_cpu_mask,
)
from rtinfra.cpu.topology import Topology

__all__ = [
    "HOUSEKEEPING_KEY",
    "ISOLATED_KEY",
    "MAX_CPUS",
    "MIN_HOUSEKEEPING_CORES",
    "CpuFinding",
    "CpuLayout",
    "CpuListError",
    "NeedsTopology",
    "Severity",
    "Topology",
    "check_layout_offline",
    "check_node_binding",
    "cpu_mask",
    "format_cpu_list",
    "format_cpu_mask",
    "parse_cpu_list",
    "parse_cpu_mask",
    "resolve_layout",
    "stand_in_layout",
]
