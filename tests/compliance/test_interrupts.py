"""Interrupts stay away from the isolated cores."""

import time

import pytest
from testinfra.host import Host

from roles.rt_tuning.model import IRQ_WATCH
from rtinfra.cpu import CpuLayout, parse_cpu_list
from rtinfra.verify import expect
from rtinfra.verify.look.interrupts import Interrupt, Interrupts
from rtinfra.verify.look.units import Units

_DUMMY_LINK = "rtinfra-check"
_REPIN_SECONDS = 60


@pytest.fixture
def movable(interrupts: Interrupts) -> tuple[Interrupt, ...]:
    """Interrupts whose place anybody can choose.

    The others (timers, interrupts per CPU, queues of disks) are placed by the kernel alone, which refuses every
    change; `isolcpus=managed_irq` keeps those away that can be kept away.
    """
    found = tuple(irq for irq in interrupts.all if irq.is_movable)
    expect.at_least(len(found), 1, "movable interrupts")
    return found


@pytest.mark.control(id="RT-10.20", severity="high", title="New devices may interrupt only the other cores")
def test_default_affinity(interrupts: Interrupts, layout: CpuLayout) -> None:
    expect.equal(interrupts.default, layout.housekeeping, "default affinity")


@pytest.mark.control(id="RT-10.21", severity="critical", title="No device is allowed to interrupt the real-time cores")
def test_requested_affinity(movable: tuple[Interrupt, ...], layout: CpuLayout) -> None:
    astray = (irq for irq in movable if irq.requested & layout.isolated)
    expect.nothing(astray, "interrupts allowed on isolated cores")


@pytest.mark.control(id="RT-10.22", severity="critical", title="No device's interrupts go to the real-time cores")
def test_effective_affinity(movable: tuple[Interrupt, ...], layout: CpuLayout) -> None:
    astray = (irq for irq in movable if irq.effective & layout.isolated)
    expect.nothing(astray, "interrupts delivered to isolated cores")


@pytest.mark.control(id="RT-10.23", severity="high", title="No device interrupted the real-time cores while we watched")
def test_no_arrivals(movable: tuple[Interrupt, ...], layout: CpuLayout) -> None:
    expect.at_least(sum(sum(irq.arrivals.values()) for irq in movable), 1, "interrupts seen anywhere")
    arrived = (irq for irq in movable if any(irq.arrivals.get(cpu, 0) for cpu in layout.isolated))
    expect.nothing(arrived, "interrupts that arrived on isolated cores")


@pytest.mark.control(
    id="RT-10.24", severity="high", title="A watcher keeps interrupts off the real-time cores when network links change"
)
def test_watcher(units: Units) -> None:
    required = {"ActiveState": "active", "UnitFileState": "enabled"}
    expect.entries(units.of(IRQ_WATCH), required, IRQ_WATCH)


@pytest.mark.disruptive
@pytest.mark.control(
    id="RT-10.25", severity="high", title="An interrupt that strays is brought back when a network link changes"
)
def test_repinned_on_link_change(host: Host, movable: tuple[Interrupt, ...], layout: CpuLayout) -> None:
    def path_of(irq: Interrupt) -> str:
        return f"/proc/irq/{irq.number}/smp_affinity_list"

    # The quietest one that moves: nobody misses it for a moment, and it is not the network card of this test.
    # Some interrupts, the timer's for one, take their own mask and refuse every other.
    quiet = sorted((irq for irq in movable if irq.users), key=lambda irq: sum(irq.arrivals.values()))
    moved = (irq for irq in quiet if host.run(f"echo {layout.isolated_list} > {path_of(irq)}").rc == 0)
    irq = next(moved, None)
    if irq is None:
        expect.not_applicable("no interrupt of this host can be moved")
        return
    path = path_of(irq)

    def place() -> frozenset[int]:
        return parse_cpu_list(host.check_output(f"cat {path}"), None)

    try:
        expect.equal(place(), layout.isolated, f"cores of interrupt {irq} after we moved it")
        host.check_output(f"ip link add {_DUMMY_LINK} type dummy && ip link set {_DUMMY_LINK} up")
        deadline = time.monotonic() + _REPIN_SECONDS
        while place() & layout.isolated and time.monotonic() < deadline:
            time.sleep(1)
        expect.equal(place(), layout.housekeeping, f"cores of interrupt {irq} after a link came up")
    finally:
        host.run(f"ip link delete {_DUMMY_LINK}; echo {layout.housekeeping_list} > {path}")
