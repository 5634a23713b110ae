"""Real-time kernel and its command line."""

from fnmatch import fnmatchcase

import pytest

from roles.host import HostConfig
from roles.rt_kernel.model import JUDGE, RT_KERNEL, SETTLE
from rtinfra.cpu import CpuLayout
from rtinfra.facts.boot import GOOD_ENTRY, Kept
from rtinfra.verify import expect
from rtinfra.verify.look.boot import Boot, BootEntry
from rtinfra.verify.look.computer import Computer
from rtinfra.verify.look.kernel import Kernel, parameter_path
from rtinfra.verify.look.units import Units

# Words that take back what isolation needs, wherever they came from.
_CONTRADICTIONS = {
    *("nosmp", "nolapic", "noapic", "noirqbalance", "nohz=off", "highres=off", "preempt=none"),
    *("preempt=voluntary", "clocksource=jiffies", "cgroup_disable=cpuset", "numa=off"),
    *("systemd.unified_cgroup_hierarchy=0", "systemd.legacy_systemd_cgroup_controller=1"),
}


@pytest.fixture
def command_line(config: HostConfig, layout: CpuLayout) -> tuple[str, ...]:
    """The words our settings put on the kernel command line."""
    return config[RT_KERNEL].command_line(layout)


@pytest.fixture
def default_entry(boot: Boot) -> BootEntry:
    """What the boot loader starts when nobody is there to choose."""
    menu = boot.menu
    instead = f"{menu.default or 'no default'}, which is no entry of its menu"
    return expect.found(menu.default_entry, "GRUB's default", instead, "an entry of its menu")


@pytest.fixture
def kept(boot: Boot, config: HostConfig) -> Kept:
    """The frozen kernel and command line that the host comes back to."""
    return expect.found(boot.last_known_good, "last known good entry", "none, or not all of its files")


def _names(words: tuple[str, ...]) -> list[str]:
    return [word.partition("=")[0] for word in words]


@pytest.mark.control(id="RT-2.1", severity="critical", title="The real-time kernel is running")
def test_kernel_is_preempt_rt(kernel: Kernel, config: HostConfig) -> None:
    expect.that("PREEMPT_RT" in kernel.version.split(), kernel.version, "PREEMPT_RT", "uname -v")


@pytest.mark.control(id="RT-2.2", severity="critical", title="The running kernel was built for real-time work")
def test_kernel_configuration(kernel: Kernel, config: HostConfig) -> None:
    expect.equal(kernel.config, "CONFIG_PREEMPT_RT=y", "configuration of the running kernel")


@pytest.mark.control(id="RT-2.3", severity="high", title="The kernel is new enough")
def test_kernel_release(kernel: Kernel, config: HostConfig) -> None:
    def numbers(text: str) -> tuple[int, int]:
        major, minor, *_ = text.split(".")
        return int(major), int(minor)

    minimum = config[RT_KERNEL].minimum_release
    expect.that(numbers(kernel.release) >= numbers(minimum), kernel.release, f"{minimum} or newer", "kernel")


@pytest.mark.control(id="RT-2.4", severity="high", title="The kernel is the one meant for this distribution")
def test_kernel_is_the_chosen_one(computer: Computer, kernel: Kernel, config: HostConfig) -> None:
    pattern = config[RT_KERNEL].source(computer.state.distribution).image_pattern
    expect.that(fnmatchcase(kernel.release, pattern), kernel.release, pattern, "kernel")


@pytest.mark.control(id="RT-2.5", severity="critical", title="A restart comes back with the same real-time kernel")
def test_boot_default_is_the_running_kernel(kernel: Kernel, kept: Kept) -> None:
    expect.equal(kept.release, kernel.release, "kernel of the last known good entry")


@pytest.mark.control(id="RT-3.1", severity="critical", title="The kernel was started with all its settings")
def test_booted_command_line(kernel: Kernel, command_line: tuple[str, ...]) -> None:
    missing = (word for word in command_line if word not in kernel.command_line)
    expect.nothing(missing, "words missing on the booted command line")


@pytest.mark.control(id="RT-3.2", severity="high", title="No kernel setting is given twice")
def test_nothing_twice(kernel: Kernel, command_line: tuple[str, ...]) -> None:
    booted = _names(kernel.command_line)
    twice = (name for name in _names(command_line) if booted.count(name) > 1)
    expect.nothing(twice, "our settings that stand more than once on the command line")


@pytest.mark.control(id="RT-3.3", severity="high", title="No kernel setting works against real-time operation")
def test_no_contradictions(kernel: Kernel, config: HostConfig) -> None:
    limits = ("maxcpus=", "nr_cpus=", "possible_cpus=")
    found = (word for word in kernel.command_line if word in _CONTRADICTIONS or word.startswith(limits))
    expect.nothing(found, "words that contradict isolation")


@pytest.mark.control(id="RT-3.4", severity="critical", title="The kernel did not reject any list of isolated cores")
def test_kernel_rejected_no_list(kernel: Kernel, config: HostConfig) -> None:
    expect.equal(kernel.log_is_complete, True, "messages since the start are all there")
    # On a bad list the kernel says so in one line and drops the whole setting.
    rejections = (line for line in kernel.log if "Housekeeping:" in line or "isolcpus:" in line)
    expect.nothing(rejections, "rejections in the kernel's log")


@pytest.mark.control(id="RT-3.5", severity="high", title="The kernel understood every one of its settings")
def test_kernel_knows_every_parameter(kernel: Kernel, command_line: tuple[str, ...]) -> None:
    expect.equal(kernel.log_is_complete, True, "messages since the start are all there")
    unknown = {
        word
        for line in kernel.log
        if line.startswith("Unknown kernel command line parameters")
        for word in line.partition('"')[2].rpartition('"')[0].split()
    }
    ours = (word for word in command_line if word in unknown or word.partition("=")[0] in unknown)
    expect.nothing(ours, "our settings that the kernel does not know")


@pytest.mark.control(id="RT-3.6", severity="medium", title="Settings of kernel modules took effect")
def test_module_parameters(kernel: Kernel, config: HostConfig) -> None:
    required = {
        path: word.partition("=")[2]
        for word in config[RT_KERNEL].parameters
        if (path := parameter_path(word)) and path in kernel.values
    }
    if not required:
        expect.not_applicable("this kernel shows none of these settings")
    expect.entries(kernel.values, required, "settings of modules")


@pytest.mark.control(id="RT-3.7", severity="critical", title="A restart comes back with the same kernel settings")
def test_boot_default_has_our_command_line(default_entry: BootEntry, command_line: tuple[str, ...]) -> None:
    missing = (word for word in command_line if word not in default_entry.words)
    expect.nothing(missing, "words missing in GRUB's default entry")


@pytest.mark.control(id="RT-3.8", severity="high", title="Nothing has changed that would only show at the next restart")
def test_next_boot_is_like_this_one(kernel: Kernel, default_entry: BootEntry) -> None:
    # GRUB adds BOOT_IMAGE itself, and our entries are marked: one that was promoted since was booted as a trial.
    def compared(words: tuple[str, ...]) -> set[str]:
        return {word for word in words if not word.startswith(("BOOT_IMAGE=", "rtinfra."))}

    differing = compared(kernel.command_line) ^ compared(default_entry.words)
    expect.nothing(sorted(differing), "words that differ at the next boot")


@pytest.mark.control(
    id="L-2.1", severity="critical", title="A start that nobody watches takes the last known good kernel"
)
def test_default_is_the_last_known_good(boot: Boot, kept: Kept) -> None:
    expect.equal(boot.menu.default, GOOD_ENTRY, "GRUB's default")
    expect.that(boot.menu.default_entry is not None, "not in the menu", "an entry of the menu", GOOD_ENTRY)


@pytest.mark.control(id="L-2.2", severity="high", title="A changed kernel has to prove itself before it is kept")
def test_trials_are_judged(units: Units, config: HostConfig) -> None:
    states = {unit: units.of(unit).get("UnitFileState", "") for unit in (JUDGE, SETTLE)}
    expect.entries(states, dict.fromkeys((JUDGE, SETTLE), "enabled"), "units that judge a trial")


@pytest.mark.control(id="L-2.3", severity="high", title="The last kernel that was tried has proven itself")
def test_last_trial(boot: Boot, config: HostConfig) -> None:
    trial = boot.trial
    if trial is None:
        expect.not_applicable("no trial boot yet: this host runs what it was found with")
    expect.that(trial.status == "promoted", f"{trial.status}: {trial.reason}", "promoted", f"trial of {trial.release}")
