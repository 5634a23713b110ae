"""The `rt_tuning` role: what keeps off the isolated cores. docs/rt-host.md gives the reason for every setting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from roles.base.model import BASE
from roles.host import HostConfig
from roles.rt_app.model import RT_APP
from roles.rt_kernel.model import RT_KERNEL
from roles.rt_tuning.model import (
    HOUSEKEEPING_GROUPS,
    IRQ_WATCH,
    LATENCY_BEFORE,
    LATENCY_PROGRAM,
    PARTITION,
    RT_SLICE,
    RT_TUNING,
    TUNE,
    WATCHDOG_DEVICE,
    RtTuningSettings,
)
from roles.shape import FleetView, Role, RoleState
from roles.shared import LAST_FILE
from rtinfra.config import Finding
from rtinfra.config.kernel_names import sysctl_finding
from rtinfra.cpu import CpuLayout
from rtinfra.facts.boot import BOOT_PROGRAM
from rtinfra.operations.resources import DAEMON_RELOAD, Absent, Action, Directory, File, Resource, RuntimeValue, Unit
from rtinfra.render import render

# Of hosts of an earlier version: others' files overruled them.
_FORMER_FILES = (
    "/etc/sysctl.d/60-rtinfra.conf",
    "/etc/udev/rules.d/60-rtinfra.rules",
    "/etc/systemd/system.conf.d/60-rtinfra.conf",
    *(f"/etc/systemd/system/{unit}.d/60-rtinfra.conf" for unit in HOUSEKEEPING_GROUPS),
)
# Re-executing is the only way that makes a running systemd read its own settings (systemd-system.conf(5)).
_DAEMON_REEXEC = Action("daemon-reexec", "systemctl daemon-reexec", covers=(DAEMON_RELOAD.name,))
_SYSCTL_FILE = f"/etc/sysctl.d/{LAST_FILE}.conf"
_SYSCTL = Action("sysctl", f"sysctl -q -p {_SYSCTL_FILE}")
_UDEV = Action(
    "udev",
    "udevadm control --reload && udevadm trigger --settle --subsystem-match=watchdog --subsystem-match=misc",
)

# Before the reboot, whose trial is judged by it; the units operation comes after it.
_ENABLE_PARTITION = Action("enable-partition", f"systemctl enable --quiet {PARTITION}", covers=(DAEMON_RELOAD.name,))

_BEFORE_SECONDS = 10
# Above any latency worth telling apart; what is later is counted as overflow.
_HISTOGRAM_US = 100_000


def state(settings: RtTuningSettings, view: FleetView) -> RoleState:
    """Return files, packages, units, and what is made of the running kernel."""
    return RoleState(
        files=tuple(
            _files(
                settings,
                view.cpus,
                view.required(BASE).realtime_group,
                priority=view.required(RT_APP).rt_process.priority,
                # A host that a deploy may not reboot is not put under load either.
                may_measure=view.required(RT_KERNEL).reboot == "when-needed",
            )
        ),
        runtime=tuple(_runtime(settings, view.cpus)),
        units=(
            *(Unit(name, startup="masked", running=False) for name in settings.masked_units),
            Unit(TUNE),
            Unit(IRQ_WATCH),
            Unit(PARTITION),
        ),
        packages=settings.packages,
        slices=(*HOUSEKEEPING_GROUPS, RT_SLICE),
        own_services=(TUNE, IRQ_WATCH, PARTITION),
    )


def _files(
    settings: RtTuningSettings, layout: CpuLayout, realtime_group: str, priority: int, may_measure: bool
) -> list[Resource]:
    """Return every path; `priority` is that of the real-time process."""
    return [
        Directory(path="/usr/local/lib/rtinfra"),
        _latency(layout, priority, may_measure),
        File(
            path=_SYSCTL_FILE,
            content=render("rt_tuning/sysctl.conf.j2", sysctl=settings.sysctl),
            actions=(_SYSCTL,),
        ),
        *_cgroups(layout),
        *_watchdog(settings),
        File(
            path=f"/etc/udev/rules.d/{LAST_FILE}.rules",
            content=render(
                "rt_tuning/udev.rules.j2",
                group=realtime_group,
                watchdog=settings.watchdog,
                link=WATCHDOG_DEVICE.removeprefix("/dev/"),
            ),
            actions=(_UDEV,),
        ),
        *_tune(settings, layout),
        *(Absent(path=path) for path in _FORMER_FILES),
    ]


def _latency(layout: CpuLayout, priority: int, may_measure: bool) -> File:
    """The measuring program. First of the files, so that its action comes before what the others do to the cores."""
    before = Action("latency-before", f"{LATENCY_PROGRAM} before {layout.isolated_list} {priority} {_BEFORE_SECONDS}")
    return File(
        path=LATENCY_PROGRAM,
        content=render(
            "rt_tuning/latency.sh.j2",
            before=LATENCY_BEFORE,
            boot=BOOT_PROGRAM,
            slice=RT_SLICE,
            histogram_us=_HISTOGRAM_US,
        ),
        mode="0755",
        validate="sh -n {path}",
        actions=(before,) if may_measure else (),
    )


def _cgroups(layout: CpuLayout) -> list[Resource]:
    """Cpusets of the control groups: every slice but that of the real-time application has the housekeeping cores.

    A drop-in for all slices of systemd (systemd.unit(5)) also holds those that nobody knows yet. A slice's own file of
    the same name comes before it.
    """
    drop_ins = {
        "slice.d": ("Slice", layout.housekeeping_list),
        f"{RT_SLICE}.d": ("Slice", layout.isolated_list),
        "init.scope.d": ("Scope", layout.housekeeping_list),
    }
    return [
        *(
            File(
                path=f"/etc/systemd/system/{folder}/{LAST_FILE}.conf",
                content=render("rt_tuning/cpus.conf.j2", section=section, cpus=cpus),
                actions=(DAEMON_RELOAD,),
            )
            for folder, (section, cpus) in drop_ins.items()
        ),
        File(
            path=f"/etc/systemd/system/{RT_SLICE}",
            content=render("rt_tuning/rt.slice.j2"),
            actions=(DAEMON_RELOAD,),
        ),
    ]


def _watchdog(settings: RtTuningSettings) -> list[Resource]:
    """Files that let systemd feed the hardware watchdog; their absence where it is off."""
    config = f"/etc/systemd/system.conf.d/{LAST_FILE}.conf"
    modules = "/etc/modules-load.d/60-rtinfra.conf"
    watchdog = settings.watchdog
    if not watchdog.enabled:
        return [Absent(path=config, actions=(_DAEMON_REEXEC,)), Absent(path=modules)]
    found: list[Resource] = [
        File(
            path=config,
            content=render("rt_tuning/system.conf.j2", watchdog=watchdog, device=WATCHDOG_DEVICE),
            actions=(_DAEMON_REEXEC,),
        )
    ]
    if watchdog.module is None:
        return [*found, Absent(path=modules)]
    # Before the manager's settings: the device must be there when systemd opens it.
    load = Action("watchdog-module", f"modprobe {watchdog.module} && udevadm settle")
    content = f"# Managed by rtinfra, role rt_tuning.\n{watchdog.module}\n".encode()
    return [File(path=modules, content=content, actions=(load,)), *found]


def _tune(settings: RtTuningSettings, layout: CpuLayout) -> list[Resource]:
    """Programs and units for what only exists while the kernel runs: set at boot, again when somebody changes it."""
    units = {"tune": TUNE, "irq-watch": IRQ_WATCH, "partition": PARTITION}
    programs: list[Resource] = [
        File(
            path=f"/usr/local/lib/rtinfra/{name}",
            content=render(f"rt_tuning/{name}.sh.j2", slice=RT_SLICE),
            mode="0755",
            validate="sh -n {path}",
            # tune calls irq-watch.
            restarts=(unit,) if unit == PARTITION else (TUNE, IRQ_WATCH),
        )
        for name, unit in units.items()
    ]
    return [
        *programs,
        File(
            path="/etc/rtinfra/tuning.conf",
            content=render("rt_tuning/tuning.conf.j2", settings=settings, layout=layout),
            validate="sh -n {path}",
            restarts=tuple(units.values()),
        ),
        *(
            File(
                path=f"/etc/systemd/system/{unit}",
                content=render(f"rt_tuning/{unit}.j2", slice=RT_SLICE),
                actions=(DAEMON_RELOAD, _ENABLE_PARTITION) if unit == PARTITION else (DAEMON_RELOAD,),
                restarts=(unit,),
            )
            for unit in units.values()
        ),
    ]


def _runtime(settings: RtTuningSettings, layout: CpuLayout) -> list[RuntimeValue]:
    """What this role makes of the running kernel, and what puts it back when somebody changed it by hand."""
    tune = Action("tune", f"systemctl restart {TUNE}")
    partition = Action("partition", f"systemctl restart {PARTITION}")
    housekeeping, isolated, mask = layout.housekeeping_list, layout.isolated_list, layout.housekeeping_mask
    workqueues = "/sys/devices/virtual/workqueue"
    priorities = settings.kthread_priorities
    return [
        *(
            RuntimeValue(
                kind="sysctl", name=key, paths=f"/proc/sys/{key.replace('.', '/')}", value=str(value), action=_SYSCTL
            )
            for key, value in settings.sysctl.items()
        ),
        RuntimeValue(
            kind="memory",
            name="transparent huge pages",
            paths="/sys/kernel/mm/transparent_hugepage/enabled",
            value=settings.transparent_hugepage,
            form="choice",
            action=tune,
        ),
        RuntimeValue(
            kind="governor",
            paths="/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
            value=settings.governor,
            action=tune,
        ),
        RuntimeValue(kind="workqueue", paths=f"{workqueues}/cpumask", value=mask, form="mask", action=tune),
        RuntimeValue(kind="workqueue", paths=f"{workqueues}/*/cpumask", value=mask, form="workqueue", action=tune),
        RuntimeValue(kind="interrupt", paths="/proc/irq/default_smp_affinity", value=mask, form="mask", action=tune),
        RuntimeValue(
            kind="interrupt",
            paths="/proc/irq/[0-9]*/smp_affinity_list",
            value=housekeeping,
            form="interrupt",
            action=tune,
        ),
        RuntimeValue(
            kind="kernel thread", paths="ksoftirqd/*", value=str(priorities.ksoftirqd), form="fifo", action=tune
        ),
        RuntimeValue(kind="kernel thread", paths="ktimers/*", value=str(priorities.ktimers), form="fifo", action=tune),
        *(
            RuntimeValue(
                kind="cgroup",
                name=unit,
                paths=f"/sys/fs/cgroup/{unit}/cpuset.cpus.effective",
                value=cpus,
                form="cpus",
                action=partition,
            )
            for unit, cpus in (
                *((unit, housekeeping) for unit in HOUSEKEEPING_GROUPS),
                (RT_SLICE, layout.isolated_list),
            )
        ),
        RuntimeValue(
            kind="partition",
            name=RT_SLICE,
            paths=f"/sys/fs/cgroup/{RT_SLICE}/cpuset.cpus.partition",
            value="isolated",
            action=partition,
        ),
        # Of everybody's groups together. Linux before 6.8 does not show it.
        RuntimeValue(
            kind="partition",
            name="isolated cores",
            paths="/sys/fs/cgroup/cpuset.cpus.isolated",
            value=isolated,
            form="cpus",
            action=partition,
        ),
        # What the kernel was told when it started; only a reboot changes it.
        RuntimeValue(kind="isolation", paths="/sys/devices/system/cpu/nohz_full", value=isolated, form="cpus"),
    ]


def _findings(settings: RtTuningSettings, config: HostConfig) -> Iterator[Finding]:
    """Refuse kernel settings that are misspelt or out of bounds; name those that nobody here knows."""
    for key, value in settings.sysctl.items():
        if (found := sysctl_finding(key, value)) is not None:
            yield replace(found, key=f"rt_tuning.sysctl.{key}")


ROLE = Role(section=RT_TUNING, state=state, findings=_findings)
