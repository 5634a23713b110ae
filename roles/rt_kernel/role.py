"""The `rt_kernel` role: kernel and command line. docs/trial-boot.md tells how a change of them comes into use."""

from __future__ import annotations

from functools import partial

from roles.rt_kernel.model import JUDGE, RT_KERNEL, SETTLE, RtKernelSettings
from roles.rt_kernel.prerequisites import refusals
from roles.rt_tuning.model import RT_TUNING, WATCHDOG_DEVICE, WatchdogSettings
from roles.shape import FleetView, Labels, Phase, Role, RoleState
from rtinfra.cpu import CpuLayout
from rtinfra.deb import read as read_deb
from rtinfra.facts.boot import BOOT, BOOT_PROGRAM, DEFAULT_ENTRY_FILE
from rtinfra.operations import boot
from rtinfra.operations.resources import DAEMON_RELOAD, Absent, Action, Directory, File, Resource, Unit
from rtinfra.paths import PROJECT
from rtinfra.render import render

# That somebody who sits at the console of a host without a root device has to say that the machine is to stay.
_SHELL_SECONDS = 180

_KEEP = Action("keep-last-known-good", f"{BOOT_PROGRAM} keep")
# The whole path: a shell may remember where it found the program before ours was there.
_UPDATE_GRUB = Action("update-grub", "/usr/local/sbin/update-grub")
# Before the reboot, so that a trial is judged; the units operation comes after it. systemd reads its units by it, too.
_ENABLE = Action("enable-boot-units", f"systemctl enable --quiet {JUDGE} {SETTLE}", covers=(DAEMON_RELOAD.name,))

_DROP_IN = "/etc/default/grub.d/60-rtinfra.cfg"
# An older program may have written another entry for what is kept.
_FOLLOWS = {BOOT_PROGRAM: (_KEEP,), "/etc/grub.d/42_rtinfra": (_KEEP, _UPDATE_GRUB)}


def state(settings: RtKernelSettings, view: FleetView) -> RoleState:
    """Return what guards the last known good kernel, the drop-in of the command line, and the reboot."""
    source = settings.source(view.distribution)
    watchdog = view.required(RT_TUNING).watchdog
    return RoleState(
        guard=tuple(_guard(settings, view.cpus, source.image_pattern, watchdog if watchdog.enabled else None)),
        files=tuple(_files(settings, view.cpus)),
        # They run at boot, once.
        units=tuple(Unit(unit, running=None) for unit in (JUDGE, SETTLE)),
        packages=() if settings.debs else source.packages,
        local_packages=tuple(read_deb(PROJECT / name) for name in settings.debs),
        steps={Phase.REBOOT: partial(_reboot, settings, view)},
    )


def _guard(
    settings: RtKernelSettings, layout: CpuLayout, image_pattern: str, watchdog: WatchdogSettings | None
) -> list[Resource]:
    """Files that keep a host on its last known good kernel until another has proven itself.

    Placed before any package: a kernel that is installed must not be booted by the next power cut already.
    """
    scripts = {
        BOOT_PROGRAM: "boot.sh",
        "/usr/local/sbin/update-grub": "update-grub.sh",
        "/etc/kernel/prerm.d/rtinfra": "keep-kernel.sh",
        "/etc/grub.d/42_rtinfra": "menu.sh",
    }
    return [
        Directory(path="/etc/rtinfra"),
        Directory(path="/usr/local/lib/rtinfra"),
        File(
            path="/etc/rtinfra/boot.conf",
            content=render(
                "rt_kernel/boot.conf.j2",
                image_pattern=image_pattern,
                parameters=settings.command_line(layout),
                isolated=layout.isolated_list,
                deadline=settings.trial_seconds,
            ),
            validate="sh -n {path}",
        ),
        *(
            File(
                path=path,
                content=render(f"rt_kernel/{name}", drop_in=_DROP_IN),
                mode="0755",
                validate="sh -n {path}",
                actions=_FOLLOWS.get(path, ()),
            )
            for path, name in scripts.items()
        ),
        File(path="/etc/apt/apt.conf.d/60rtinfra-path", content=render("rt_kernel/apt-path.conf")),
        File(path=DEFAULT_ENTRY_FILE, content=render("rt_kernel/default.cfg"), actions=(_KEEP, _UPDATE_GRUB)),
        *(
            File(
                path=f"/etc/systemd/system/{unit}",
                content=render(f"rt_kernel/{unit}.j2", deadline=settings.trial_seconds),
                actions=(DAEMON_RELOAD, _ENABLE),
            )
            for unit in (JUDGE, SETTLE)
        ),
        *_initramfs(image_pattern, watchdog),
    ]


def _initramfs(image_pattern: str, watchdog: WatchdogSettings | None) -> list[Resource]:
    """Hooks by which the initramfs arms the watchdog: a kernel that hangs before systemd runs is reset too."""
    paths = {
        "/etc/initramfs-tools/hooks/rtinfra-watchdog": "watchdog-hook.sh.j2",
        "/etc/initramfs-tools/scripts/init-top/rtinfra-watchdog": "watchdog-init.sh.j2",
        "/etc/initramfs-tools/scripts/panic/rtinfra-watchdog": "watchdog-panic.sh.j2",
    }
    # Only of kernels that may be tried: the others stay as they came.
    rebuild = Action(
        "initramfs",
        f"for k in /boot/vmlinuz-{image_pattern}; do "
        '[ ! -e "$k" ] || update-initramfs -u -k "${k#/boot/vmlinuz-}" || exit 1; done',
    )
    if watchdog is None:
        return [Absent(path=path, actions=(rebuild,)) for path in paths]
    values = {
        "module": watchdog.module,
        "identity": watchdog.identity,
        "link": WATCHDOG_DEVICE,
        "feeder": "/run/rtinfra-feeder",
        "seconds": _SHELL_SECONDS,
    }
    return [
        File(
            path=path,
            content=render(f"rt_kernel/{name}", **values),
            mode="0755",
            validate="sh -n {path}",
            actions=(rebuild,),
        )
        for path, name in paths.items()
    ]


def _files(settings: RtKernelSettings, layout: CpuLayout) -> list[Resource]:
    """The GRUB drop-in: our words of the kernel command line, for the entries that a trial is made from."""
    parameters = settings.command_line(layout)
    return [
        File(
            path=_DROP_IN,
            content=render(
                "rt_kernel/grub.cfg.j2",
                parameters=parameters,
                names=[word.partition("=")[0] for word in parameters],
            ),
            validate="sh -n {path}",
            actions=(_UPDATE_GRUB,),
            restarts=(BOOT,),
        )
    ]


def _reboot(settings: RtKernelSettings, view: FleetView) -> None:
    """Boot the desired kernel and command line on trial when they are not what runs."""
    boot.reboot_when_needed(
        name="reboot when needed",
        image_pattern=settings.source(view.distribution).image_pattern,
        parameters=settings.command_line(view.cpus),
        minimum_release=settings.minimum_release,
        allowed=settings.reboot == "when-needed",
        timeout_seconds=settings.reboot_timeout_seconds,
        at_once=settings.reboots_of(len(view.members(RT_KERNEL))),
    )


ROLE = Role(
    section=RT_KERNEL,
    state=state,
    # Last of the changes to a real-time host: the reboot that follows brings up everything above at once.
    labels=Labels(guard="last known good", files="boot loader"),
    local_files=lambda settings: {f"debs.{index}": name for index, name in enumerate(settings.debs)},
    refusals=refusals,
)
