"""The one CPU model: lists in kernel grammar, masks, topology, and the split into isolated and housekeeping.

Everything that names CPUs on a host derives from one `CpuLayout`: kernel command line, interrupt masks,
slices, units and the application's files. The kernel itself only warns about a bad list and then drops the
whole setting, so every list is expanded here against the CPUs the host really has, refused when it does not
fit, and written out as an explicit list without `N`, `all` or groups.

Grammar: https://docs.kernel.org/admin-guide/kernel-parameters.html ("cpu lists").
Masks: https://docs.kernel.org/core-api/kernel-api.html (bitmap_parse: hexadecimal, 32-bit groups).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

#: The largest CONFIG_NR_CPUS that any Linux distribution builds with; more is a typing mistake.
MAX_CPUS: Final = 8192
#: Cores a host keeps for housekeeping at least: interrupts, kernel threads and all other programs run there.
MIN_HOUSEKEEPING_CORES: Final = 2

ISOLATED_KEY: Final = "cpu.isolated"
HOUSEKEEPING_KEY: Final = "cpu.housekeeping"

Severity = Literal["error", "warning"]

# A list that names each of MAX_CPUS on its own, with four digits and a comma, is this long.
_MAX_TEXT = MAX_CPUS * 5
_ITEM = re.compile(
    r"(?:(?P<all>[aA][lL][lL])|(?P<first>[0-9]+|N)(?:(?P<dash>-)(?P<last>[0-9]+|N))?)"
    r"(?P<pattern>:(?P<used>[0-9]+)/(?P<group>[0-9]+))?"
)
_HEX_GROUPS = re.compile(r"[0-9a-fA-F]+(?:,[0-9a-fA-F]{1,8})*")

_CPU0_REASON = "CPU 0 is isolated, but the kernel starts on it and keeps work there (timekeeping, firmware interrupts)"


class CpuListError(ValueError):
    """A CPU list or mask that cannot be used.

    Attributes:
        value: the offending text, the whole list or one element of it.
        reason: what is wrong, in plain words, without a full stop.
        suggestion: what to write instead, or None when nothing can be guessed.
    """

    def __init__(self, value: str, reason: str, suggestion: str | None = None) -> None:
        super().__init__(f"{reason}; {suggestion}" if suggestion else reason)
        self.value = value
        self.reason = reason
        self.suggestion = suggestion


class NeedsTopology(CpuListError):
    """The list is well-formed, but `N` or `all` in it means nothing without a host."""


@dataclass(frozen=True)
class _Element:
    """One element of a list. `None` as a bound stands for `N`; `used` of every `group` CPUs are meant."""

    text: str
    first: int | None
    last: int | None
    used: int
    group: int
    is_all: bool

    @property
    def needs_topology(self) -> bool:
        return self.first is None or self.last is None


def parse_cpu_list(text: str, online: frozenset[int] | None) -> frozenset[int]:
    """Expand a CPU list in kernel grammar: `a`, `a-b`, `a,b-c`, `a-b:used/group`, `N`, `all`.

    Blanks around commas are accepted. `N` is the last online CPU and `all` is every online CPU.

    Args:
        text: the list, for example `2-3`, `2-N` or `0-15:2/4`.
        online: the CPUs of the host; None when there is no host to ask, then only explicit lists work.

    Raises:
        NeedsTopology: `online` is None and the list uses `N` or `all`.
        CpuListError: malformed, empty, backwards, too large, or naming a CPU that is not online.
    """
    elements = _read(text)
    if online is None:
        for element in elements:
            if element.needs_topology:
                raise NeedsTopology(
                    text,
                    f"{element.text} can only be expanded on a host",
                    "name the CPUs, for example 2-3, or state how many CPUs the host has",
                )
    elif not online:
        raise CpuListError(text, "there are no online CPUs to choose from")
    cpus: set[int] = set()
    for element in elements:
        cpus.update(_expand(element, online))
    if online is not None and not cpus <= online:
        raise _unknown(text, frozenset(cpus), online)
    return frozenset(cpus)


def _read(text: str) -> list[_Element]:
    """Split a list into its elements; refuses everything that is wrong on any host."""
    if not text.strip():
        raise CpuListError(text, "the list is empty", 'name at least one CPU, for example "2-3"')
    if len(text) > _MAX_TEXT:
        raise CpuListError(text[:40] + "...", f"the list is longer than one of {MAX_CPUS} CPUs can be")
    return [_read_element(part.strip(), text) for part in text.split(",")]


def _read_element(part: str, text: str) -> _Element:
    match = _ITEM.fullmatch(part)
    if match is None:
        what = f"{part} is not a CPU number or range" if part else "there is nothing between two commas"
        raise CpuListError(text, what, _repair(text))
    if match["pattern"] and not (match["all"] or match["dash"]):
        example = f"{match['first']}-N{match['pattern']}"
        raise CpuListError(text, f"{part} has a group but no range", f"write a range, for example {example}")
    for number in (match["first"], match["last"], match["used"], match["group"]):
        # The length is looked at first, since int() refuses thousands of digits with an error of its own.
        if number not in (None, "N") and (len(number) > 9 or int(number) >= MAX_CPUS):
            raise CpuListError(text, f"{number[:12]} is beyond {MAX_CPUS - 1}, the last CPU Linux can have")
    first = 0 if match["all"] else _bound(match["first"])
    last = None if match["all"] else _bound(match["last"]) if match["dash"] else first
    if first is not None and last is not None and first > last:
        raise CpuListError(text, f"{part} runs backwards", f"did you mean {last}-{first}?")
    used, group = (int(match["used"]), int(match["group"])) if match["pattern"] else (1, 1)
    if group == 0 or used == 0:
        raise CpuListError(text, f"{part} selects nothing: used and group must be at least 1")
    if used > group:
        raise CpuListError(text, f"{part} uses {used} of every {group} CPUs", f"did you mean :{group}/{used} instead?")
    is_all = match["all"] is not None and not match["pattern"]
    return _Element(part, first, last, used, group, is_all)


def _bound(number: str) -> int | None:
    return None if number == "N" else int(number)


def _repair(text: str) -> str:
    """Undo what people and spreadsheets do to lists: other dashes, blanks or brackets, a small n."""
    candidate = re.sub(r"\s*(?:[\u2010-\u2015\u2212~]|\.\.+)\s*", "-", text.strip(" \t\r\n[](){}\"'"))
    candidate = re.sub(r"\s*-\s*", "-", candidate)
    candidate = re.sub(r"[\s,;]+", ",", candidate).strip(",").replace("n", "N")
    if all(_ITEM.fullmatch(part) for part in candidate.split(",")):
        return f"did you mean {candidate}?"
    return 'write numbers and ranges, for example "1,2-3"'


def _expand(element: _Element, online: frozenset[int] | None) -> Iterable[int]:
    if element.is_all and online is not None:
        return online
    end = max(online) if online else 0
    first = end if element.first is None else element.first
    last = end if element.last is None else element.last
    if first > last:
        if element.last is None:
            raise CpuListError(
                element.text,
                f"{element.text} is empty on a host whose last CPU is {end} (N = {end})",
                f"did you mean {end - 1}-{end} or {end}?" if end else "did you mean 0?",
            )
        raise CpuListError(
            element.text,
            f"{element.text} runs backwards on a host whose last CPU is {end} (N = {end})",
            f"did you mean {last}-N?",
        )
    return (cpu for cpu in range(first, last + 1) if (cpu - first) % element.group < element.used)


def _unknown(text: str, cpus: frozenset[int], online: frozenset[int]) -> CpuListError:
    missing, known = cpus - online, cpus & online
    return CpuListError(
        text,
        f"{_cpus(missing)} not online on this host (online: {format_cpu_list(online)})",
        f"did you mean {format_cpu_list(known)}?" if known else f"choose from {format_cpu_list(online)}",
    )


def format_cpu_list(cpus: Iterable[int]) -> str:
    """Return the canonical list, ascending and with ranges: `0-1,4`. Empty for no CPUs."""
    parts: list[str] = []
    ordered = sorted(set(cpus))
    start = 0
    for index, cpu in enumerate(ordered):
        if index + 1 < len(ordered) and ordered[index + 1] == cpu + 1:
            continue
        parts.append(str(cpu) if start == index else f"{ordered[start]}-{cpu}")
        start = index + 1
    return ",".join(parts)


def cpu_mask(cpus: Iterable[int]) -> int:
    """Return the bit mask with bit `n` set for CPU `n`. Compare masks as integers, never as text."""
    mask = 0
    for cpu in cpus:
        mask |= 1 << cpu
    return mask


def format_cpu_mask(cpus: Iterable[int]) -> str:
    """Return the kernel's bitmap text: hexadecimal, groups of 32 bits with commas, no leading zeros."""
    mask = cpu_mask(cpus)
    groups = []
    while mask >> 32:
        groups.append(f"{mask & 0xFFFFFFFF:08x}")
        mask >>= 32
    groups.append(f"{mask:x}")
    return ",".join(reversed(groups))


def parse_cpu_mask(text: str) -> frozenset[int]:
    """Read a CPU mask as the kernel (`00000000,0000000c`) or taskset (`c`) prints it.

    Raises:
        CpuListError: not hexadecimal groups, or more than MAX_CPUS bits.
    """
    stripped = text.strip()
    if not _HEX_GROUPS.fullmatch(stripped):
        raise CpuListError(text, "is not a CPU mask: hexadecimal digits, in groups of up to eight")
    first, *others = stripped.split(",")
    # A group is 32 bits even where its leading zeros are missing; only the first may be longer (taskset).
    digits = "".join([first, *(group.zfill(8) for group in others)]).lstrip("0")
    if len(digits) * 4 > MAX_CPUS:
        raise CpuListError(text[:40] + "...", f"has more than {MAX_CPUS} bits")
    mask = int(digits or "0", 16)
    return frozenset(cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1)


@dataclass(frozen=True)
class Topology:
    """The CPUs a host has.

    Attributes:
        online: online CPUs, at least one.
        siblings: for each CPU the hardware threads of its physical core, itself included; a CPU that is
            missing here is a core of its own.
        nodes: CPUs by NUMA node; empty on a kernel without NUMA, which is the same as one node 0.
    """

    online: frozenset[int]
    siblings: Mapping[int, frozenset[int]]
    nodes: Mapping[int, frozenset[int]]

    def __post_init__(self) -> None:
        if not self.online:
            raise ValueError("a host has at least one online CPU")
        if not self.nodes:
            object.__setattr__(self, "nodes", {0: self.online})

    @classmethod
    def flat(cls, n: int, nodes: int = 1, threads: int = 1) -> Topology:
        """Return a regular host of `n` CPUs, numbered as x86 firmware does.

        Cores are spread over the nodes in equal blocks; the second threads of all cores follow the first
        ones, so that `flat(8, threads=2)` has the siblings 0,4 1,5 2,6 3,7.

        Raises:
            ValueError: `n` is not a multiple of `threads`, or there are fewer cores than nodes.
        """
        cores, rest = divmod(n, threads)
        if rest or cores < nodes or nodes < 1:
            raise ValueError(f"{n} CPUs with {threads} threads per core cannot form {nodes} nodes")
        core_cpus = [frozenset(range(core, n, cores)) for core in range(cores)]
        return cls(
            online=frozenset(range(n)),
            siblings={cpu: core_cpus[cpu % cores] for cpu in range(n)},
            nodes={
                node: frozenset().union(*(core_cpus[c] for c in range(cores) if c * nodes // cores == node))
                for node in range(nodes)
            },
        )

    @property
    def cores(self) -> tuple[frozenset[int], ...]:
        """The physical cores, each as its online CPUs, ordered by their first CPU."""
        return tuple(sorted({self.core_of(cpu) for cpu in self.online}, key=min))

    def core_of(self, cpu: int) -> frozenset[int]:
        """Return the online CPUs that share the physical core of `cpu`, itself included."""
        return (self.siblings.get(cpu, frozenset()) & self.online) | {cpu}

    def core_count(self, cpus: Iterable[int]) -> int:
        """Return how many physical cores the given CPUs belong to."""
        return len({self.core_of(cpu) for cpu in cpus})

    def node_of(self, cpu: int) -> int:
        """Return the NUMA node of an online CPU.

        Raises:
            KeyError: the CPU is on no node of this host.
        """
        for node, cpus in self.nodes.items():
            if cpu in cpus:
                return node
        raise KeyError(cpu)


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
    where = ", ".join(f"{_cpus_of(text)} on node {number}" for number, text in by_node.items())
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
            f"{_cpus(shared)} in {ISOLATED_KEY} ({format_cpu_list(iso)}) too",
            _use_rest(better),
        )


def _partition_findings(
    iso: frozenset[int], hk: frozenset[int], value: str, rest: frozenset[int]
) -> Iterator[CpuFinding]:
    yield from _overlap_findings(iso, hk, value, rest)
    if forgotten := rest - hk:
        yield CpuFinding(
            "error",
            HOUSEKEEPING_KEY,
            value,
            f"{_cpus(forgotten)} online, but neither here nor in {ISOLATED_KEY} ({format_cpu_list(iso)})",
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


def _cpu0_finding(iso: frozenset[int], value: str, topology: Topology, min_housekeeping_cores: int) -> CpuFinding:
    wanted = min(topology.core_count(iso), len(topology.cores) - min_housekeeping_cores)
    last_cores = [core for core in topology.cores if 0 not in core][-wanted:] if wanted > 0 else []
    cpus = format_cpu_list(cpu for core in last_cores for cpu in core)
    return CpuFinding("warning", ISOLATED_KEY, value, _CPU0_REASON, f"isolate {cpus}" if cpus else None)


def _nearest_isolation(iso: frozenset[int], topology: Topology, min_housekeeping_cores: int) -> frozenset[int] | None:
    """Return whole cores close to what was wanted that leave enough for housekeeping, or None.

    Cores are given back from the lowest number on, since the kernel's own work gathers there.
    """
    wanted = [core for core in topology.cores if core & iso]
    keep = min(len(wanted), len(topology.cores) - min_housekeeping_cores)
    if keep <= 0:
        return None
    return frozenset().union(*wanted[-keep:])


def _cpus(cpus: frozenset[int]) -> str:
    return _cpus_of(format_cpu_list(cpus))


def _cpus_of(text: str) -> str:
    return f"CPU {text} is" if text.isdecimal() else f"CPUs {text} are"
