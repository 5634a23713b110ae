"""What the host must be and have."""

import pytest

from roles.host import HostConfig
from roles.shared import CPU, PREREQUISITES
from rtinfra.cpu import CpuLayout
from rtinfra.verify import expect
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.look.packages import Packages
from rtinfra.verify.plugin import Subject


@pytest.mark.control(id="RT-1.1", severity="critical", title="The host has enough processor cores")
def test_cores(computer: Computer, config: HostConfig) -> None:
    topology = computer.state.topology
    expect.at_least(topology.core_count(topology.online), config[PREREQUISITES].cores, "physical cores")


@pytest.mark.control(id="RT-1.2", severity="critical", title="The host has enough memory")
def test_memory(computer: Computer, config: HostConfig) -> None:
    expect.at_least(computer.state.memory_mb, config[PREREQUISITES].memory_mb, "memory", "MB")


@pytest.mark.control(
    id="RT-1.3", severity="critical", title="The cores chosen for real-time work fit the real hardware"
)
def test_cpu_lists_fit_the_topology(subject: Subject, config: HostConfig) -> None:
    expect.nothing(subject.layout_problems, f"contradictions of cpu.isolated = {config[CPU].isolated}")


@pytest.mark.control(
    id="RT-1.4", severity="high", title="There are two cores for real-time work and two for everything else"
)
def test_two_cores_on_each_side(computer: Computer, layout: CpuLayout) -> None:
    sides = (layout.isolated, layout.housekeeping)
    expect.at_least(min(computer.state.topology.core_count(side) for side in sides), 2, "cores on the smaller side")


@pytest.mark.control(id="RT-1.5", severity="high", title="The real-time cores share one near memory (NUMA node)")
def test_isolated_cores_on_one_node(layout: CpuLayout) -> None:
    nodes = {layout.topology.node_of(cpu) for cpu in layout.isolated}
    expect.equal(len(nodes), 1, "NUMA nodes of the isolated cores")


@pytest.mark.control(id="RT-1.6", severity="high", title="The library for memory placement is there (libnuma)")
def test_libnuma(packages: Packages) -> None:
    expect.equal(packages.has_libnuma, True, "the dynamic linker finds libnuma.so.1")
