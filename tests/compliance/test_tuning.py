"""Tuning of the running kernel."""

import pytest

from roles.base.model import BASE
from roles.host import HostConfig
from roles.rt_kernel.model import RT_KERNEL
from roles.rt_tuning.model import RT_TUNING, TUNE
from rtinfra.verify import expect
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.look.cpus import Cpus
from rtinfra.verify.look.kernel import Kernel
from rtinfra.verify.look.others_files import OthersFiles
from rtinfra.verify.look.threads import SCHED_FIFO, Threads
from rtinfra.verify.look.units import Units


@pytest.mark.control(id="RT-10.30", severity="high", title="All kernel settings have their values")
def test_sysctl(kernel: Kernel, config: HostConfig) -> None:
    # RT kernels leave some keys out; what is absent has no effect.
    found = {key: text for key in config[RT_TUNING].sysctl if (text := kernel.setting(key)) is not None}
    required = {key: " ".join(str(value).split()) for key, value in config[RT_TUNING].sysctl.items() if key in found}
    actual = {key: " ".join(text.split()) for key, text in found.items()}
    expect.at_least(len(required), 1, "kernel settings this kernel has")
    expect.entries(actual, required, "kernel settings")


@pytest.mark.control(id="RT-10.64", severity="high", title="No file of another program overrules these settings")
def test_nobody_overrules(others_files: OthersFiles, config: HostConfig) -> None:
    tuning = config[RT_TUNING]
    sysctl = {key: " ".join(str(value).split()) for key, value in tuning.sysctl.items()}
    manager = {"RuntimeWatchdogSec", "RebootWatchdogSec", "WatchdogDevice"} if tuning.watchdog.enabled else set()
    found = [
        *(
            line
            for line in others_files.later("sysctl.d")
            if sysctl.get(line.setting[0], line.setting[1]) != line.setting[1]
        ),
        *(line for line in others_files.later("system.conf.d") if line.setting[0] in manager),
        *(line for line in others_files.later("limits.d") if {"rtprio", "memlock"} & set(line.text.split())),
        *others_files.later("rules.d"),
        *(
            others_files.keeping_out(tuning.watchdog.module)
            if tuning.watchdog.enabled and tuning.watchdog.module
            else ()
        ),
    ]
    expect.nothing(found, "lines that are read after ours and say something else")


@pytest.mark.control(
    id="RT-10.31", severity="high", title="The kernel leaves the control loop as much time as the settings say"
)
def test_rt_throttling(kernel: Kernel, config: HostConfig) -> None:
    key = "kernel.sched_rt_runtime_us"
    if key not in config[RT_TUNING].sysctl:
        expect.not_applicable("the settings leave this to the kernel")
    expect.equal(kernel.setting(key), str(config[RT_TUNING].sysctl[key]), key)


@pytest.mark.control(id="RT-10.32", severity="medium", title="Memory is not rearranged into huge pages")
def test_transparent_hugepage(kernel: Kernel, config: HostConfig) -> None:
    chosen = kernel.transparent_hugepage
    if chosen is None:
        expect.not_applicable("this kernel has no transparent huge pages")
    expect.equal(chosen, config[RT_TUNING].transparent_hugepage, "transparent huge pages")


@pytest.mark.control(
    id="RT-10.33", severity="medium", title="The kernel's detector of soft lock-ups is off: its timer would disturb"
)
def test_soft_watchdog(kernel: Kernel, config: HostConfig) -> None:
    if "nosoftlockup" not in config[RT_KERNEL].parameters:
        expect.not_applicable("the settings leave this detector to the kernel")
    expect.equal(kernel.setting("kernel.soft_watchdog"), "0", "kernel.soft_watchdog")


@pytest.mark.control(
    id="RT-10.34", severity="medium", title="The kernel's detector of hard lock-ups is off: its timer would disturb"
)
def test_nmi_watchdog(kernel: Kernel, config: HostConfig) -> None:
    actual = kernel.setting("kernel.nmi_watchdog")
    if "nmi_watchdog=0" not in config[RT_KERNEL].parameters:
        expect.not_applicable("the settings leave this detector to the kernel")
    if actual is None:
        expect.not_applicable("this kernel has no such detector")
    expect.equal(actual, "0", "kernel.nmi_watchdog")


def _expect_priority(threads: Threads, pattern: str, priority: int) -> None:
    found = threads.kernel(pattern)
    # Every real-time kernel has them: none found means that nothing was looked at.
    expect.at_least(len(found), 1, "threads")
    wrong = (
        f"{task.name} policy {task.policy} priority {task.priority}"
        for task in found
        if (task.policy, task.priority) != (SCHED_FIFO, priority)
    )
    expect.nothing(wrong, f"threads without SCHED_FIFO {priority}")


@pytest.mark.control(id="RT-10.35", severity="medium", title="Kernel threads for deferred work have their priority")
def test_ksoftirqd(threads: Threads, config: HostConfig) -> None:
    _expect_priority(threads, r"ksoftirqd/\d+", config[RT_TUNING].kthread_priorities.ksoftirqd)


@pytest.mark.control(id="RT-10.36", severity="medium", title="Kernel threads for timers have their priority")
def test_ktimers(threads: Threads, config: HostConfig) -> None:
    _expect_priority(threads, r"ktimers/\d+", config[RT_TUNING].kthread_priorities.ktimers)


def _rcu_priority(config: HostConfig) -> int:
    words = dict(word.partition("=")[::2] for word in config[RT_KERNEL].parameters)
    if "rcutree.kthread_prio" not in words:
        expect.not_applicable("the settings leave this priority to the kernel")
    return int(words["rcutree.kthread_prio"])


@pytest.mark.control(
    id="RT-10.37", severity="medium", title="Kernel threads for the clean-up of memory (RCU) have their priority"
)
def test_rcuc(threads: Threads, config: HostConfig) -> None:
    _expect_priority(threads, r"rcuc/\d+", _rcu_priority(config))


@pytest.mark.control(
    id="RT-10.38",
    severity="low",
    title="Kernel threads that speed up a late clean-up of memory (RCU) have their priority",
)
def test_rcub(threads: Threads, config: HostConfig) -> None:
    _expect_priority(threads, r"rcub/\d+", _rcu_priority(config))


@pytest.mark.control(id="RT-10.39", severity="high", title="Time is read from the processor, not from slow chips")
def test_clocksource(computer: Computer, kernel: Kernel, config: HostConfig) -> None:
    actual = kernel.clocksource
    # arch_sys_counter is the counter of ARM processors.
    is_processor = actual in ("tsc", "arch_sys_counter")
    if computer.is_virtual and not is_processor:
        expect.not_applicable(f"this virtual machine offers only {actual}")
    expect.that(is_processor, actual, "tsc", "clock source")


@pytest.mark.control(id="RT-10.40", severity="high", title="The kernel trusts the processor's clock")
def test_clock_is_stable(computer: Computer, kernel: Kernel, config: HostConfig) -> None:
    complaints = [line for line in kernel.log if "nstable" in line]
    if computer.is_virtual and complaints:
        expect.not_applicable(f"the clock of a virtual machine: {complaints[0]}")
    expect.nothing(complaints, "complaints in the kernel's log")


@pytest.mark.control(id="RT-10.41", severity="medium", title="Cores run at full speed all the time")
def test_governor(cpus: Cpus, config: HostConfig) -> None:
    if not cpus.governors:
        expect.not_applicable("the processor's frequency cannot be set here")
    expect.equal(set(cpus.governors), {config[RT_TUNING].governor}, "frequency governors")


@pytest.mark.control(id="RT-10.42", severity="medium", title="The processor does not choose its speed by itself")
def test_pstate_driver(cpus: Cpus, config: HostConfig) -> None:
    drivers = cpus.frequency_drivers
    disabled = {word.removesuffix("=disable") for word in config[RT_KERNEL].parameters if word.endswith("=disable")}
    if not drivers or not disabled:
        expect.not_applicable("the processor's frequency cannot be set here" if not drivers else "not asked for")
    expect.nothing(disabled & drivers, "frequency drivers that should be off")


@pytest.mark.control(id="RT-10.43", severity="medium", title="Cores do not fall into deep sleep")
def test_sleep_states(kernel: Kernel, cpus: Cpus, config: HostConfig) -> None:
    driver = cpus.idle_driver
    words = dict(word.partition("=")[::2] for word in config[RT_KERNEL].parameters)
    # The ACPI driver takes its limit from the module `processor`.
    limit = words.get({"acpi_idle": "processor.max_cstate"}.get(driver, f"{driver}.max_cstate"))
    if driver == "none" or limit is None:
        expect.not_applicable(f"no limit applies to this processor (sleep driver: {driver})")
    module = "processor" if driver == "acpi_idle" else driver
    actual = kernel.parameter(f"{module}.max_cstate")
    expect.equal(actual, limit, f"deepest sleep state of {driver}")


@pytest.mark.control(
    id="RT-10.44", severity="high", title="The real-time process is allowed to keep the cores out of sleep"
)
def test_dma_latency_device(cpus: Cpus, config: HostConfig) -> None:
    expect.equal(cpus.dma_latency_access, f"660 {config[BASE].realtime_group}", "mode and group of cpu_dma_latency")


@pytest.mark.control(
    id="RT-10.45", severity="high", title="Programs that would disturb the real-time cores cannot start"
)
def test_masked_units(units: Units, config: HostConfig) -> None:
    free = (
        f"{unit} ({units.of(unit).get('LoadState', 'unknown')})"
        for unit in config[RT_TUNING].masked_units
        if units.of(unit).get("LoadState") not in ("masked", "not-found")
    )
    expect.nothing(free, "units that could start")


@pytest.mark.control(id="RT-10.46", severity="high", title="Nothing moves interrupts around")
def test_no_irqbalance(threads: Threads, config: HostConfig) -> None:
    expect.nothing((task for task in threads.all if task.name == "irqbalance"), "irqbalance processes")


@pytest.mark.control(id="RT-10.47", severity="high", title="The tuning is applied again at every start")
def test_tune_service(units: Units) -> None:
    required = {"ActiveState": "active", "UnitFileState": "enabled"}
    expect.entries(units.of(TUNE), required, TUNE)


@pytest.mark.control(id="RT-10.48", severity="medium", title="No change of a service is waiting to be loaded")
def test_no_pending_reload(units: Units) -> None:
    stale = (name for name, unit in units.all.items() if unit.get("NeedDaemonReload") == "yes")
    expect.nothing(stale, "units whose file changed after systemd read it")
