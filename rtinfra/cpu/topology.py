"""The CPUs a host has: cores with their hardware threads, NUMA nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Topology:
    """The CPUs a host has.

    Attributes:
        online: online CPUs, at least one.
        siblings: for each CPU the hardware threads of its physical core, itself included; a CPU that is
            missing here is a core of its own.
        nodes: CPUs by NUMA node; empty on a kernel without NUMA, which is the same as one node 0.
        cache_mates: for each CPU those that it shares its second-level cache with, itself included; a CPU that is
            missing here has one of its own.
        kinds: for each CPU the kind of its core, on processors with more than one kind.
    """

    online: frozenset[int]
    siblings: Mapping[int, frozenset[int]]
    nodes: Mapping[int, frozenset[int]]
    cache_mates: Mapping[int, frozenset[int]] = field(default_factory=dict)
    kinds: Mapping[int, str] = field(default_factory=dict)

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

    @property
    def clusters(self) -> tuple[frozenset[int], ...]:
        """Online CPUs of several cores that share a second-level cache, ordered by their first CPU."""
        found = {cpus & self.online for cpu, cpus in self.cache_mates.items() if cpu in self.online}
        return tuple(sorted((cpus for cpus in found if self.core_count(cpus) > 1), key=min))

    def kinds_of(self, cpus: Iterable[int]) -> dict[str, frozenset[int]]:
        """Return the given CPUs by the kind of their cores; empty where there is one kind only."""
        if len(set(self.kinds.values())) < 2:
            return {}
        found: dict[str, set[int]] = {}
        for cpu in sorted(cpus):
            found.setdefault(self.kinds.get(cpu, "unknown"), set()).add(cpu)
        return {kind: frozenset(members) for kind, members in found.items()}

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
