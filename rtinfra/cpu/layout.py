"""The split of a host's CPUs into isolated and housekeeping, and what is wrong with one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from rtinfra.cpu.lists import CpuListError, NeedsTopology, cpus_are, format_cpu_list, format_cpu_mask, parse_cpu_list
from rtinfra.cpu.topology import Topology

#: Cores a host keeps for housekeeping at least: interrupts, kernel threads and all other programs run there.
MIN_HOUSEKEEPING_CORES: Final = 2

ISOLATED_KEY: Final = "cpu.isolated"
HOUSEKEEPING_KEY: Final = "cpu.housekeeping"

Severity = Literal["error", "warning"]

_CPU0_REASON = "CPU 0 is isolated, but the kernel starts on it and keeps work there (timekeeping, firmware interrupts)"


@dataclass(frozen=True)
class CpuLayout:
    """The split of a host's online CPUs. Disjoint and covering by construction.

    Raises:
        ValueError: the sets overlap, do not cover the online CPUs, or one is empty. `resolve_layout` says
            the same in the operator's words before it comes to this.
    """

    isolated: frozenset[int]
    housekeeping: frozenset[int]
    topology: Topology

    def __post_init__(self) -> None:
        if not self.isolated or not self.housekeeping or self.isolated & self.housekeeping:
            raise ValueError("isolated and housekeeping CPUs must be disjoint and not empty")
        if self.isolated | self.housekeeping != self.topology.online:
            raise ValueError("isolated and housekeeping CPUs must be all online CPUs")

    @property
    def isolated_list(self) -> str:
        """Canonical list, for the kernel command line and `AllowedCPUs=`: `2-3`."""
        return format_cpu_list(self.isolated)

    @property
    def housekeeping_list(self) -> str:
        """Canonical list of the housekeeping CPUs: `0-1`."""
        return format_cpu_list(self.housekeeping)

    @property
    def housekeeping_mask(self) -> str:
        """Kernel bitmap text, for interrupt and workqueue affinity: `3`."""
        return format_cpu_mask(self.housekeeping)


@dataclass(frozen=True)
class CpuFinding:
    """Something to say about a CPU setting.

    Attributes:
        severity: an error refuses the layout, a warning does not.
        key: dotted configuration key, for example `cpu.isolated`.
        value: what the operator wrote.
        reason: what is wrong, without a full stop.
        suggestion: what to write instead, or None.
    """

    severity: Severity
    key: str
    value: object
    reason: str
    suggestion: str | None = None


def resolve_layout(
    isolated: str,
    housekeeping: str | None,
    topology: Topology,
    *,
    min_housekeeping_cores: int = MIN_HOUSEKEEPING_CORES,
) -> tuple[CpuLayout | None, list[CpuFinding]]:
    """Expand and check the operator's two lists against a host, reporting everything at once.

    Args:
        isolated: the list under `cpu.isolated`.
        housekeeping: the list under `cpu.housekeeping`; None for all CPUs that are not isolated.
        topology: the host.
        min_housekeeping_cores: physical cores that must stay for housekeeping.

    Returns:
        The layout, or None when one of the findings is an error; and the findings.
    """
    findings: list[CpuFinding] = []
    iso = _parsed(ISOLATED_KEY, isolated, topology.online, findings)
    hk = None if housekeeping is None else _parsed(HOUSEKEEPING_KEY, housekeeping, topology.online, findings)
    if iso is None or (hk is None and housekeeping is not None):
        return None, findings
    rest = topology.online - iso
    if hk is not None:
        findings += _partition_findings(iso, hk, str(housekeeping), rest)
    findings += _core_findings(iso, isolated, topology, min_housekeeping_cores)
    findings += _neighbour_findings(iso, isolated, topology)
    if 0 in iso:
        findings.append(_cpu0_finding(iso, isolated, topology, min_housekeeping_cores))
    if any(found.severity == "error" for found in findings):
        return None, findings
    return CpuLayout(iso, rest, topology), findings


def check_layout_offline(isolated: str, housekeeping: str | None, count: int | None) -> list[CpuFinding]:
    """Say what can be said about the two lists without a host.

    Args:
        isolated: the list under `cpu.isolated`.
        housekeeping: the list under `cpu.housekeeping`, or None.
        count: CPUs the operator expects the host to have, at least 1. With it everything but SMT siblings
            and NUMA nodes is checked; without it grammar and overlap are.
    """
    if count is not None:
        return resolve_layout(isolated, housekeeping, Topology.flat(count))[1]
    findings: list[CpuFinding] = []
    iso = _parsed(ISOLATED_KEY, isolated, None, findings)
    hk = None if housekeeping is None else _parsed(HOUSEKEEPING_KEY, housekeeping, None, findings)
    if iso is not None and hk is not None:
        findings += _overlap_findings(iso, hk, str(housekeeping), hk - iso)
    for key, text in ((ISOLATED_KEY, isolated), (HOUSEKEEPING_KEY, housekeeping)):
        if text is not None and text.strip().lower() == "all":
            reason = "all CPUs here leave none for the other list"
            findings.append(CpuFinding("error", key, text, reason, "name some of the CPUs, for example 2-3"))
    if iso is not None and 0 in iso:
        findings.append(CpuFinding("warning", ISOLATED_KEY, isolated, _CPU0_REASON, "leave CPU 0 out of the list"))
    return findings


def stand_in_layout(isolated: str, housekeeping: str | None, count: int | None) -> CpuLayout:
    """Return a layout that the two lists fit, for whoever asks what follows from them before a host was seen.

    Nothing that is made from it is ever sent to a host.

    Raises:
        ValueError: no host has room for these lists.
    """
    named = [int(number) for number in re.findall(r"[0-9]+", f"{isolated} {housekeeping or ''}")]
    sizes = [count] if count is not None else sorted({max(named, default=0) + 1, *(2**power for power in range(2, 14))})
    for size in sizes:
        layout, _ = resolve_layout(isolated, housekeeping, Topology.flat(size), min_housekeeping_cores=1)
        if layout is not None:
            return layout
    raise ValueError(f"isolated {isolated} and housekeeping {housekeeping or 'the rest'} fit no host")


def check_node_binding(
    key: str, cpus: frozenset[int], node: int, topology: Topology, severity: Severity = "error"
) -> list[CpuFinding]:
    """Check that a process's CPUs are on the NUMA node its memory is bound to.

    Args:
        key: dotted key of the node number.
        cpus: online CPUs the process runs on.
        node: the node number the operator wrote.
        topology: the host.
        severity: of the findings; a mere preference may deserve only a warning.
    """
    by_node = {
        number: format_cpu_list(cpus & members) for number, members in sorted(topology.nodes.items()) if cpus & members
    }
    if by_node.keys() == {node}:
        return []
    where = ", ".join(f"{cpus_are(text)} on node {number}" for number, text in by_node.items())
    if node not in topology.nodes:
        reason = f"the host has no NUMA node {node} (it has {format_cpu_list(topology.nodes)}); {where}"
    else:
        reason = f"the process is not on NUMA node {node} alone: {where}"
    if len(by_node) == 1:
        suggestion = f"use {next(iter(by_node))}"
    else:
        choices = "; ".join(
            f"node {number} has {format_cpu_list(members)}" for number, members in sorted(topology.nodes.items())
        )
        suggestion = f"choose CPUs of one node: {choices}"
    return [CpuFinding(severity, key, node, reason, suggestion)]


def _parsed(key: str, text: str, online: frozenset[int] | None, findings: list[CpuFinding]) -> frozenset[int] | None:
    """Parse, turning an error into a finding. None also when only a host could tell."""
    try:
        return parse_cpu_list(text, online)
    except NeedsTopology:
        return None
    except CpuListError as error:
        findings.append(CpuFinding("error", key, text, error.reason, error.suggestion))
        return None


def _overlap_findings(
    iso: frozenset[int], hk: frozenset[int], value: str, better: frozenset[int]
) -> Iterator[CpuFinding]:
    if shared := iso & hk:
        yield CpuFinding(
            "error",
            HOUSEKEEPING_KEY,
            value,
            f"{cpus_are(format_cpu_list(shared))} in {ISOLATED_KEY} ({format_cpu_list(iso)}) too",
            _use_rest(better),
        )


def _partition_findings(
    iso: frozenset[int], hk: frozenset[int], value: str, rest: frozenset[int]
) -> Iterator[CpuFinding]:
    yield from _overlap_findings(iso, hk, value, rest)
    if forgotten := rest - hk:
        told = cpus_are(format_cpu_list(forgotten))
        yield CpuFinding(
            "error",
            HOUSEKEEPING_KEY,
            value,
            f"{told} online, but neither here nor in {ISOLATED_KEY} ({format_cpu_list(iso)})",
            _use_rest(rest),
        )


def _use_rest(rest: frozenset[int]) -> str:
    default = "remove the key: all CPUs that are not isolated are the default"
    return f"use {format_cpu_list(rest)}, or {default}" if rest else default


def _core_findings(
    iso: frozenset[int], value: str, topology: Topology, min_housekeeping_cores: int
) -> Iterator[CpuFinding]:
    """Check physical cores: none split between both sides, and enough left over.

    Two threads of one core share its caches and execution units: a neighbour on the other thread is felt as
    jitter, so a core is isolated as a whole or not at all.
    """
    better = _nearest_isolation(iso, topology, min_housekeeping_cores)
    suggestion = f"isolate {format_cpu_list(better)}" if better else "use a host with more cores"
    split = [core for core in topology.cores if core & iso and core - iso]
    if split:
        pairs = ", ".join(format_cpu_list(core) for core in split)
        yield CpuFinding(
            "error",
            ISOLATED_KEY,
            value,
            f"splits the threads of one physical core between isolated and housekeeping (siblings: {pairs})",
            suggestion,
        )
    left = sum(1 for core in topology.cores if not core & iso)
    if left < min_housekeeping_cores:
        yield CpuFinding(
            "error",
            ISOLATED_KEY,
            value,
            f"leaves {left} of {len(topology.cores)} physical cores for housekeeping; "
            f"at least {min_housekeeping_cores} are needed",
            suggestion,
        )


def _neighbour_findings(iso: frozenset[int], value: str, topology: Topology) -> Iterator[CpuFinding]:
    """Warn of cores that are not alike, and of caches that are shared with housekeeping cores."""
    kinds = topology.kinds_of(iso)
    if len(kinds) > 1:
        told = ", ".join(f"{format_cpu_list(cpus)} {kind}" for kind, cpus in kinds.items())
        largest = max(kinds.values(), key=len)
        yield CpuFinding(
            "warning",
            ISOLATED_KEY,
            value,
            f"mixes kinds of cores ({told}): the same work takes longer on some of them",
            f"isolate cores of one kind, for example {format_cpu_list(largest)}",
        )
    for cluster in topology.clusters:
        # Where all share one, nobody can choose.
        if cluster & iso and cluster - iso and cluster != topology.online:
            yield CpuFinding(
                "warning",
                ISOLATED_KEY,
                value,
                f"takes {format_cpu_list(cluster & iso)} of the cores {format_cpu_list(cluster)}, which share their "
                "second-level cache: what runs on the others empties it",
                f"isolate all of {format_cpu_list(cluster)}, or none of them",
            )


def _cpu0_finding(iso: frozenset[int], value: str, topology: Topology, min_housekeeping_cores: int) -> CpuFinding:
    required = min(topology.core_count(iso), len(topology.cores) - min_housekeeping_cores)
    last_cores = [core for core in topology.cores if 0 not in core][-required:] if required > 0 else []
    cpus = format_cpu_list(cpu for core in last_cores for cpu in core)
    return CpuFinding("warning", ISOLATED_KEY, value, _CPU0_REASON, f"isolate {cpus}" if cpus else None)


def _nearest_isolation(iso: frozenset[int], topology: Topology, min_housekeeping_cores: int) -> frozenset[int] | None:
    """Return whole cores close to what was required that leave enough for housekeeping, or None.

    Cores are given back from the lowest number on, since the kernel's own work gathers there.
    """
    required = [core for core in topology.cores if core & iso]
    keep = min(len(required), len(topology.cores) - min_housekeeping_cores)
    if keep <= 0:
        return None
    return frozenset().union(*required[-keep:])
