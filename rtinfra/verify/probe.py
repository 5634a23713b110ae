"""The script that looks at everything on a host in one go.

POSIX sh and what a bare Debian has. Forks are what costs on a slow machine, so files are read by the hundred with
one grep, and units by the dozen with one systemctl.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from roles.agents.role import FILEBEAT_UNIT
from roles.base.model import BASE
from roles.drift.model import DRIFT
from roles.drift.role import RESULT as DRIFT_RESULT
from roles.drift.role import SERVICE as DRIFT_SERVICE
from roles.drift.role import TIMER as DRIFT_TIMER
from roles.host import HostConfig
from roles.mirror_client.model import MIRROR_CLIENT
from roles.mirror_place import MirrorPlace
from roles.mirror_server.model import MIRROR_SERVER, REGISTRY_UNIT, WEB_UNIT
from roles.preflight import role as preflight
from roles.preflight.model import PREFLIGHT
from roles.rt_app.model import NON_RT_UNIT, RT_APP, RT_UNIT
from roles.rt_kernel.model import JUDGE, RT_KERNEL, SETTLE
from roles.rt_tuning.model import HOUSEKEEPING_GROUPS, IRQ_WATCH, RT_SLICE, RT_TUNING, TUNE, WATCHDOG_DEVICE
from roles.shared import AGENTS_SLICE
from rtinfra.facts import http, sections
from rtinfra.facts.boot import KEPT_SCRIPT, TRIAL_SCRIPT
from rtinfra.facts.host import Host
from rtinfra.facts.http import Request, loopback
from rtinfra.preflight.settings import CONFIGURATION
from rtinfra.programs import Program
from rtinfra.quadlet import SLICE
from rtinfra.verify import mirror
from rtinfra.verify.mirror import MirrorQuestions

CHRONY: Final = "chrony.service"
LOGROTATE: Final = "logrotate.timer"
#: Programs that set the clock as chrony does; two of them make it jump.
OTHER_CLOCK_UNITS: Final = ("systemd-timesyncd.service", "ntpsec.service", "ntp.service", "openntpd.service")
#: Kinds of rejection to look for in the kernel's log.
_KERNEL_LOG_PATTERN = "Housekeeping:|isolcpus:|Unknown kernel command line|clocksource.*unstable|Marking TSC unstable"
# Enough to see that something is stored; a database may have tens of thousands.
_MOST_DATA_FILES = 2000
_UNIT_PROPERTIES = (
    "Id LoadState ActiveState SubState UnitFileState MainPID Type NotifyAccess ExecStart Restart RestartUSec "
    "WatchdogUSec StartLimitBurst StartLimitIntervalUSec CPUSchedulingPolicy CPUSchedulingPriority CPUAffinity "
    "NUMAPolicy NUMAMask NRestarts Slice AllowedCPUs EffectiveCPUs StandardOutput StandardError "
    "ActiveEnterTimestampMonotonic NeedDaemonReload MemoryMax CPUQuotaPerSecUSec ControlGroup"
)
_MANAGER_PROPERTIES = "RuntimeWatchdogUSec,RebootWatchdogUSec,WatchdogDevice,WatchdogLastPingTimestampMonotonic"
# Files of one line each. Read with their names, NUL between name and value: names of workqueues may hold colons.
_VALUE_FILES = """
/sys/devices/system/cpu/isolated /sys/devices/system/cpu/nohz_full
/sys/kernel/mm/transparent_hugepage/enabled
/sys/devices/system/clocksource/clocksource0/*_clocksource
/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_driver
/sys/devices/system/cpu/cpuidle/current_driver
/sys/devices/virtual/workqueue/cpumask /sys/devices/virtual/workqueue/*/cpumask
/sys/class/watchdog/watchdog*/identity /sys/class/watchdog/watchdog*/state
/proc/sys/kernel/soft_watchdog /proc/sys/kernel/nmi_watchdog
/proc/irq/default_smp_affinity /proc/irq/[0-9]*/smp_affinity_list /proc/irq/[0-9]*/effective_affinity_list
/sys/kernel/irq/[0-9]*/actions
"""
# What the kernel holds slices and their services to.
_TELEMETRY_VALUES = " ".join(
    f"/sys/fs/cgroup/{group}/{name}"
    for group in (AGENTS_SLICE, SLICE, f"{AGENTS_SLICE}/*", f"{SLICE}/*")
    for name in ("memory.max", "cpu.max", "cpuset.cpus.effective")
)
# An interrupt that refuses even the value it has is placed by the kernel alone (managed, per CPU, timer). Only
# those are tried that are not where the default puts them: shell built-ins, no fork.
_IMMOVABLE = """read default </proc/irq/default_smp_affinity
for d in /proc/irq/[0-9]*; do
    read mask <$d/smp_affinity || continue
    [ "$mask" = "$default" ] || echo "$mask" >$d/smp_affinity || echo ${d##*/}
done"""
# The ring buffer may have lost the lines of the boot; the journal has kept them.
_KERNEL_LOG = f"""log=$(dmesg)
case $log in *'Linux version '*) ;; *) log=$(journalctl -k -b -o cat --no-pager) ;; esac
case $log in *'Linux version '*) echo complete ;; *) echo incomplete ;; esac
printf '%s\\n' "$log" | grep -E '{_KERNEL_LOG_PATTERN}'"""


@dataclass(frozen=True)
class Questions:
    """What to ask of one host, derived from its settings."""

    units: tuple[str, ...]
    own_services: tuple[str, ...]
    packages: tuple[str, ...]
    sysctl: tuple[str, ...]
    parameters: tuple[str, ...]
    login_user: str | None
    group: str
    application: ApplicationPlaces | None
    programs: tuple[Program, ...]
    requests: tuple[Request, ...]
    mirror: MirrorQuestions | None
    private_directories: tuple[str, ...]


@dataclass(frozen=True)
class ApplicationPlaces:
    """Where the application's files and ports are."""

    config_dir: str
    checkpoint_dir: str
    log_dir: str
    health_ports: tuple[int, ...]
    metrics_ports: tuple[int, ...]


def questions(
    config: HostConfig,
    programs: Sequence[Program] = (),
    requests: Sequence[Request] = (),
    place: MirrorPlace | None = None,
) -> Questions:
    """Derive what to ask from a host's settings; real-time sections may be absent.

    `programs` are the host's telemetry programs, `requests` what to ask them over HTTP, `place` is the offline mirror
    that it uses or serves.
    """
    members = list(config[BASE].realtime_members)
    units = [CHRONY, LOGROTATE, DRIFT_TIMER, "systemd-journald.service", *OTHER_CLOCK_UNITS]
    packages = list(config[BASE].packages)
    own_services: list[str] = []
    application = None
    if config.get(RT_TUNING) is not None:
        own_services += [TUNE, IRQ_WATCH, *([DRIFT_SERVICE] if config[DRIFT].enabled else [])]
        units += [*HOUSEKEEPING_GROUPS, RT_SLICE, JUDGE, SETTLE, *config[RT_TUNING].masked_units]
        packages += config[RT_TUNING].packages
    if config.get(RT_APP) is not None:
        app = config[RT_APP]
        own_services += [RT_UNIT, NON_RT_UNIT]
        packages += app.application.packages
        members.append(app.user)
        processes = (app.rt_process, app.non_rt_process)
        application = ApplicationPlaces(
            config_dir=str(app.config_dir),
            checkpoint_dir=f"{app.state_dir}/checkpoints",
            log_dir=str(app.log_dir),
            health_ports=tuple(process.health_port for process in processes),
            metrics_ports=tuple(process.metrics_port for process in processes),
        )
    if config.get(MIRROR_SERVER) is not None:
        units += [WEB_UNIT, REGISTRY_UNIT]
        packages += config[MIRROR_SERVER].packages
    private_directories: tuple[str, ...] = ()
    if config.get(PREFLIGHT) is not None:
        own_services.append(preflight.SERVICE)
        units.append(preflight.TIMER)
        packages += config[PREFLIGHT].packages
        private_directories = (CONFIGURATION, str(config[PREFLIGHT].state_directory))
    if programs:
        units += [AGENTS_SLICE, SLICE, *(program.unit for program in programs)]
        packages += [package for program in programs for package in program.packages]
    return Questions(
        units=tuple(dict.fromkeys([*units, *own_services])),
        own_services=tuple(own_services),
        packages=tuple(dict.fromkeys(packages)),
        sysctl=tuple(config[RT_TUNING].sysctl) if config[RT_TUNING] else (),
        parameters=config[RT_KERNEL].parameters if config[RT_KERNEL] else (),
        login_user=members[0] if members else None,
        group=config[BASE].realtime_group,
        application=application,
        programs=tuple(programs),
        requests=tuple(requests),
        mirror=None if place is None else _about_mirror(config, place),
        private_directories=private_directories,
    )


def _about_mirror(config: HostConfig, place: MirrorPlace) -> MirrorQuestions:
    client, server = config[MIRROR_CLIENT], config[MIRROR_SERVER]
    return MirrorQuestions(
        place,
        is_client=client is not None and client.enabled,
        registry_port=None if server is None else server.registry_port,
    )


def script(asked: Questions) -> str:
    """Return the shell script; its output is for `rtinfra.verify.snapshot.parse`."""
    preamble = (
        "LC_ALL=C PATH=$PATH:/usr/sbin:/sbin; export LC_ALL PATH\n"
        f"set -- $(systemctl show -P MainPID {RT_UNIT} {NON_RT_UNIT} 2>/dev/null)\n"
        "rt=${1:-0} non_rt=${2:-0}"
    )
    # First and last: what arrived in between arrived while we watched.
    commands = {
        "interrupts_before": "cat /proc/interrupts",
        **_general(asked),
        **(_application(asked.application) if asked.application else {}),
        **(_telemetry(asked) if asked.programs else {}),
        **(mirror.commands(asked.mirror) if asked.mirror else {}),
        "interrupts_after": "cat /proc/interrupts",
        "end": "echo reached",
    }
    # ssh's own failures have the exit status 255; whatever the last command says must not look like one.
    return "\n".join([preamble, Host().command().get_raw_value(), sections.script(commands), "exit 0"])


def _general(asked: Questions) -> Mapping[str, str]:
    units = " ".join(shlex.quote(unit) for unit in asked.units)
    packages = " ".join(shlex.quote(package) for package in asked.packages)
    services = " ".join(shlex.quote(unit) for unit in asked.own_services)
    values = " ".join(
        [
            *_VALUE_FILES.split(),
            *(_TELEMETRY_VALUES.split() if asked.programs else ()),
            *(f"/sys/fs/cgroup/{unit}/cpuset.cpus.effective" for unit in (*HOUSEKEEPING_GROUPS, RT_SLICE)),
            *(sysctl_path(key) for key in asked.sysctl),
            *(path for word in asked.parameters if (path := parameter_path(word))),
        ]
    )
    commands = {
        # Which installation this is, without telling the id itself, machine-id(5).
        "machine_id": "{ echo rtinfra; cat /etc/machine-id; } | sha256sum",
        "host_key": (
            "for key in /etc/ssh/ssh_host_ed25519_key.pub /etc/ssh/ssh_host_*_key.pub; do "
            "ssh-keygen -l -f $key && break; done | cut -d' ' -f2"
        ),
        "boot_id": "cat /proc/sys/kernel/random/boot_id",
        "kernel": "uname -r; uname -v",
        "kernel_config": (
            "grep -h '^CONFIG_PREEMPT_RT=' /boot/config-$(uname -r) || "
            "zcat /proc/config.gz | grep '^CONFIG_PREEMPT_RT='"
        ),
        "machine": (
            "cat /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name; "
            "sed -n '/^model name/{s/.*: //p;q}' /proc/cpuinfo"
        ),
        "virtualisation": "systemd-detect-virt",
        "cmdline": "cat /proc/cmdline",
        "values": f"grep -sHZ '' {values}",
        "immovable": _IMMOVABLE,
        "thread_stat": "grep -sHZ '' /proc/[0-9]*/task/[0-9]*/stat",
        "thread_status": "grep -sHZE '^(Cpus_allowed_list|VmLck):' /proc/[0-9]*/task/[0-9]*/status",
        "cgroups": "grep -sHZ '^0::' /proc/[0-9]*/cgroup",
        "units": f"systemctl show --no-pager -p {','.join(_UNIT_PROPERTIES.split())} -- {units}",
        "manager": f"systemctl show --no-pager -p {_MANAGER_PROPERTIES}",
        "system_state": "systemctl is-system-running",
        "failed_units": "systemctl list-units --state=failed --plain --no-legend --no-pager",
        "watchdog_link": f"readlink -f {WATCHDOG_DEVICE}",
        "kernel_log": _KERNEL_LOG,
        # The last known good entry is in a file that grub.cfg reads.
        "boot_menu": (
            r"grep -hE '^\s*(set default=|menuentry |submenu |linux\s|\})' /boot/grub/grub.cfg /boot/grub/rtinfra.cfg"
        ),
        "grubenv": "grep -a '^saved_entry=' /boot/grub/grubenv",
        "kept": KEPT_SCRIPT,
        "trial": TRIAL_SCRIPT,
        "packages": f"dpkg-query -W -f '${{Package}} ${{db:Status-Status}}\\n' {packages}",
        "libraries": "ldconfig -p | grep -o 'libnuma\\.so\\.1' | head -n 1",
        "group": f"getent group {shlex.quote(asked.group)}",
        "dma_latency": "stat -c '%a %G' /dev/cpu_dma_latency",
        "clock_tracking": "chronyc -c tracking",
        # What journald itself says its bounds are.
        "journal_usage": (
            "journalctl -b -q --no-pager -n 8 -o json --output-fields=JOURNAL_NAME,JOURNAL_PATH,MAX_USE,DISK_KEEP_FREE "
            "MESSAGE_ID=ec387f577b844b8fa948f33cad9a75e6"
        ),
        "journal_file": "ls -d /var/log/journal/$(cat /etc/machine-id)/system.journal",
        # A rehearsal (-d) of rotating everything now (-f).
        "logrotate": (
            "command -v logrotate && "
            "logrotate -d -f /etc/logrotate.conf 2>&1 | grep -E '^(error|renaming|copying|truncating)'"
        ),
        "drift": f"cat {DRIFT_RESULT}",
        "uptime": "cat /proc/uptime",
    }
    if asked.login_user is not None:
        # runuser opens a session with pam_limits as a login does, and starts no user manager.
        user = shlex.quote(asked.login_user)
        commands["login"] = f"runuser -l -s /bin/sh {user} -c 'id -nG; cat /proc/self/limits'"
    if asked.private_directories:
        places = " ".join(shlex.quote(path) for path in asked.private_directories)
        commands["private_files"] = f"find {places} -printf '%p %m %u\\n'"
    if services:
        commands["exposure"] = f"systemd-analyze security --no-pager {services} | grep -i 'overall exposure'"
    return commands


def _application(places: ApplicationPlaces) -> Mapping[str, str]:
    logs = shlex.quote(places.log_dir)
    checkpoints = shlex.quote(places.checkpoint_dir)
    health = [Request(loopback(port, "/health")) for port in places.health_ports]
    others = [
        *(Request(loopback(port, "/health/live")) for port in places.health_ports),
        *(Request(loopback(port, "/metrics")) for port in places.metrics_ports),
    ]
    return {
        # Asked again at the end: a slow machine may be late once.
        "http_early": http.command(health),
        **{
            f"json {name}": f"cat {shlex.quote(places.config_dir)}/{name}.json"
            for name in ("cpu_affinity", "numa_binding", "failover_policy", "tracing_config")
        },
        "rt_cmdline": "tr '\\0' '\\n' </proc/$rt/cmdline",
        "non_rt_cmdline": "tr '\\0' '\\n' </proc/$non_rt/cmdline",
        "rt_uid": "stat -c %U /proc/$rt; stat -c %U /proc/$non_rt",
        "rt_limits": "cat /proc/$rt/limits",
        "numa_maps": "cat /proc/$rt/numa_maps",
        "open_logs": f"readlink /proc/$rt/fd/* /proc/$non_rt/fd/* | grep -F {logs}/",
        "log_tails": f"tail -q -n 1 {logs}/rt_process.log {logs}/non_rt_process.log",
        "checkpoint_dir": f"stat -c '%a %U %G' {checkpoints}",
        "checkpoints": f"stat -c '%Y %n' {checkpoints}/rt_process_*.json",
        "newest_checkpoint": f'cat "$(ls -t {checkpoints}/rt_process_*.json | head -n 1)"',
        "http": http.command([*health, *others, *health]),
    }


def _telemetry(asked: Questions) -> Mapping[str, str]:
    directories = " ".join(shlex.quote(path) for program in asked.programs for path in program.directories)
    commands = {
        "containers": "podman ps --all --no-trunc --format '{{.Names}} {{.ImageID}} {{.State}}'",
        "images": "podman image ls --no-trunc --digests --format '{{.ID}} {{.Repository}}@{{.Digest}}'",
        "http_telemetry": http.command(asked.requests),
    }
    if directories:
        commands["directories"] = f"stat -c '%n %a %U %G' {directories}"
        commands["data_files"] = f"find {directories} -xdev -type f -printf '%s %p\\n' | head -n {_MOST_DATA_FILES}"
    if any(program.unit == FILEBEAT_UNIT for program in asked.programs):
        commands["filebeat"] = "filebeat test config 2>&1"
    return commands


def sysctl_path(key: str) -> str:
    """Return the file behind a sysctl key."""
    return "/proc/sys/" + key.replace(".", "/")


def parameter_path(word: str) -> str | None:
    """Return the file in which a module shows a parameter from the kernel command line; None for other words."""
    name, _, _ = word.partition("=")
    module, dot, parameter = name.partition(".")
    return f"/sys/module/{module}/parameters/{parameter}" if dot else None
