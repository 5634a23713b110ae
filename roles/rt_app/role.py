"""The `rt_app` role: the real-time application, or the reference workload in its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

from roles.agents.model import AGENTS
from roles.base.model import BASE
from roles.facets import Bound, Listener, Scrape
from roles.host import HostConfig
from roles.prometheus.model import PROMETHEUS
from roles.rt_app.model import NON_RT_UNIT, RT_APP, RT_UNIT, ProcessSettings, RtAppSettings
from roles.rt_app.workload_archive import pack
from roles.rt_kernel.model import RCU_PRIORITY, RT_KERNEL
from roles.rt_tuning.model import PARTITION, RT_TUNING, KthreadPriorities
from roles.shape import FleetView, Labels, Role, RoleState
from roles.shared import LAST_FILE
from rtinfra.config import Finding
from rtinfra.cpu import CpuFinding, CpuLayout, check_node_binding
from rtinfra.deb import LocalPackage
from rtinfra.deb import read as read_deb
from rtinfra.facts.host import HostState
from rtinfra.netloc import url
from rtinfra.operations.resources import DAEMON_RELOAD, Absent, Action, Directory, File, Resource, Unit
from rtinfra.paths import PROJECT
from rtinfra.render import render, render_json

RT_PROGRAM = "/usr/local/bin/rt_process"
NON_RT_PROGRAM = "/usr/local/bin/non_rt_process"

_WORKLOAD = Path(__file__).parent / "workload"
_LIBRARY = "/usr/local/lib/rtinfra"
_ARCHIVE = f"{_LIBRARY}/mxrc_reference.pyz"
COMPILE = Action("compile-workload", f"python3 -I {_ARCHIVE} --compile")
# As one module, which it was; and what the Pythons of Debian 12, Ubuntu 24.04 and Debian 13 compiled that to.
_FORMER_MODULE = f"{_LIBRARY}/mxrc_reference.py"
_FORMER_COMPILED = [f"{_LIBRARY}/__pycache__/mxrc_reference.cpython-3{minor}.pyc" for minor in (11, 12, 13)]
# Where every collector takes OTLP over HTTP unless told otherwise (opentelemetry.io, OTLP specification).
_OTLP_HTTP_PORT = 4318
_SYSUSERS = Action("sysusers-mxrc", "systemd-sysusers")
# NUMAPolicy= of systemd.exec(5) for the words of numa_binding.json. A strict LOCAL binding is `bind`: the
# process runs on that node's cores only, and memory from elsewhere is refused instead of preferred less.
_NUMA_POLICIES = {"LOCAL": "local", "PREFERRED": "preferred", "BIND": "bind", "INTERLEAVE": "interleave"}


def state(settings: RtAppSettings, view: FleetView) -> RoleState:
    """Return the user, programs, configuration and units of both processes."""
    python = ("python3",) if settings.application.kind == "reference" else ()
    agents = view.own(AGENTS)
    return RoleState(
        # In one operation with the other files a file could belong to a user that is only just being made.
        accounts=(_user(settings, view.required(BASE).realtime_group),),
        files=tuple(_files(settings, view.cpus, agents.collector.http_port if agents else None)),
        units=(Unit(NON_RT_UNIT), Unit(RT_UNIT)),
        # What our units call, the application's libraries, Python for the workload.
        packages=("numactl", *settings.application.packages, *python),
        local_packages=_local_packages(settings),
        own_services=(RT_UNIT, NON_RT_UNIT),
    )


def _user(settings: RtAppSettings, realtime_group: str) -> File:
    """The user both processes run as."""
    return File(
        path="/etc/sysusers.d/60-rtinfra-mxrc.conf",
        content=render("rt_app/sysusers.conf.j2", settings=settings, realtime_group=realtime_group),
        actions=(_SYSUSERS,),
    )


def _files(settings: RtAppSettings, layout: CpuLayout, collector_port: int | None) -> list[Resource]:
    """Programs, configuration, directories and units."""
    both = (RT_UNIT, NON_RT_UNIT)
    user = settings.user
    return [
        *_programs(settings),
        *former_workload(),
        Directory(path=str(settings.config_dir)),
        *(
            File(
                path=f"{settings.config_dir}/{name}.json",
                content=render_json(content),
                restarts=both,
            )
            for name, content in documents(settings, layout, collector_port).items()
        ),
        Directory(path=str(settings.state_dir), mode="0750", owner=user, group=user),
        Directory(path=f"{settings.state_dir}/checkpoints", mode="0750", owner=user, group=user),
        # A log shipper joins the application's group.
        Directory(path=str(settings.log_dir), mode="0750", owner=user, group=user),
        File(
            path="/etc/logrotate.d/mxrc",
            content=render("rt_app/logrotate.j2", settings=settings, units=both),
        ),
        File(
            path=f"/etc/needrestart/conf.d/{LAST_FILE}.conf",
            content=render("rt_app/needrestart.conf.j2", units=(*both, PARTITION)),
            validate="perl -c {path}",
        ),
        File(
            path="/etc/systemd/system/logrotate.timer.d/60-rtinfra.conf",
            content=render("rt_app/logrotate.timer.conf.j2"),
            actions=(DAEMON_RELOAD,),
            restarts=("logrotate.timer",),
        ),
        *(
            File(
                path=f"/etc/systemd/system/{unit}",
                content=render(
                    f"rt_app/{unit}.j2",
                    settings=settings,
                    layout=layout,
                    numa=numa,
                    other_nodes=other_nodes(settings.rt_process, layout),
                ),
                actions=(DAEMON_RELOAD,),
                restarts=(unit,),
            )
            for unit, numa in (
                (RT_UNIT, numa_directives(settings.rt_process)),
                (NON_RT_UNIT, numa_directives(settings.non_rt_process)),
            )
        ),
    ]


def _programs(settings: RtAppSettings) -> list[Resource]:
    """The two programs, unless a Debian package brings them."""
    application = settings.application
    both = (RT_UNIT, NON_RT_UNIT)
    archive: list[Resource] = []
    match application.kind:
        case "reference":
            archive = [File(path=_ARCHIVE, content=pack(_WORKLOAD), actions=(COMPILE,), restarts=both)]
            sources = (_WORKLOAD / "launcher.py", _WORKLOAD / "launcher.py")
        case "binary":
            sources = (PROJECT / str(application.rt_binary), PROJECT / str(application.non_rt_binary))
        case "deb":
            return []
    return [
        *archive,
        *(
            File(path=program, content=local.read_bytes(), mode="0755", restarts=(unit,))
            for program, local, unit in zip((RT_PROGRAM, NON_RT_PROGRAM), sources, both, strict=True)
        ),
    ]


def former_workload() -> list[Resource]:
    """What hosts have of the reference workload that were deployed when it was one module: nothing may start it."""
    return [
        # With what the units are restarted for, so that it comes back should they not start without it.
        Absent(path=_FORMER_MODULE, restarts=(RT_UNIT, NON_RT_UNIT)),
        *(Absent(path=path) for path in _FORMER_COMPILED),
    ]


def trace_target(collector_port: int | None) -> str:
    """Return where the collector on the host takes spans; at the port of OTLP where it has none of ours."""
    return url("localhost", collector_port or _OTLP_HTTP_PORT)


def documents(settings: RtAppSettings, layout: CpuLayout, collector_port: int | None = None) -> dict[str, Any]:
    """The application's four JSON files by name (RT-4 to RT-7).

    `collector_port` is where the collector of this host takes OTLP over HTTP; None: there is none.
    """
    cores = {"rt_process": sorted(layout.isolated), "non_rt_process": sorted(layout.housekeeping)}
    processes = {"rt_process": settings.rt_process, "non_rt_process": settings.non_rt_process}
    tracing = settings.tracing
    return {
        "cpu_affinity": {
            name: {
                "cpu_cores": cores[name],
                "isolation_mode": process.isolation_mode,
                "is_exclusive": process.is_exclusive,
                "priority": process.priority,
                "policy": process.policy,
            }
            for name, process in processes.items()
        },
        "numa_binding": {
            name: {
                "numa_node": process.numa_node,
                "memory_policy": process.memory_policy,
                "strict_binding": process.strict_binding,
                "migrate_pages": process.migrate_pages,
                "cpu_cores_hint": cores[name],
            }
            for name, process in processes.items()
        },
        "failover_policy": {"rt_process": settings.failover.to_json()},
        "tracing_config": {
            "service_name": tracing.service_name,
            "sampling_rate": tracing.sampling_rate,
            "exporter": {
                "type": "OTLP",
                "protocol": "http",
                "endpoint": tracing.endpoint or trace_target(collector_port),
            },
            "propagator": tracing.propagator,
            "instrumentation": tracing.instrumentation.to_json(),
        },
    }


def numa_directives(process: ProcessSettings) -> list[str]:
    """NUMAPolicy= and NUMAMask= of a unit for the words of numa_binding.json."""
    policy = "bind" if process.strict_binding else _NUMA_POLICIES[process.memory_policy]
    # `local` takes no nodes: it is wherever the thread runs.
    mask = [] if policy == "local" else [f"NUMAMask={process.numa_node}"]
    return [f"NUMAPolicy={policy}", *mask]


def other_nodes(process: ProcessSettings, layout: CpuLayout) -> str:
    """NUMA nodes that a strictly bound process may not use, as a list for migratepages(8); else empty."""
    if not process.strict_binding:
        return ""
    return ",".join(str(node) for node in sorted(layout.topology.nodes) if node != process.numa_node)


def _local_packages(settings: RtAppSettings) -> tuple[LocalPackage, ...]:
    """The application's own package, when it comes as one."""
    application = settings.application
    return (read_deb(PROJECT / str(application.deb)),) if application.kind == "deb" else ()


def _local_files(settings: RtAppSettings) -> Mapping[str, str | None]:
    application = settings.application
    match application.kind:
        case "binary":
            return {
                "application.rt_binary": application.rt_binary,
                "application.non_rt_binary": application.non_rt_binary,
            }
        case "deb":
            return {"application.deb": application.deb}
        case _:
            return {}


def _findings(settings: RtAppSettings, config: HostConfig) -> Iterator[Finding]:
    """Refuse what would kill a healthy process, or keep it from running when it has to."""
    yield from _watchdog_findings(settings)
    yield from _folder_findings(settings)
    yield from _priority_findings(settings.rt_process.priority, config)


def _folder_findings(settings: RtAppSettings) -> Iterator[Finding]:
    """Refuse folders inside each other. Each has a mode of its own; state and logs grow, configuration does not."""
    folders = {name: getattr(settings, name) for name in ("config_dir", "state_dir", "log_dir")}
    inside = [pair for pair in permutations(folders, 2) if folders[pair[0]].is_relative_to(folders[pair[1]])]
    # Of two that are the same the later one is named.
    for name, other in inside[-1:]:
        relation = "is also" if folders[name] == folders[other] else f"lies in {folders[other]},"
        reason = f"{relation} rt_app.{other}"
        yield Finding(f"rt_app.{name}", folders[name], reason, "give each a folder of its own")


def _priority_findings(priority: int, config: HostConfig) -> Iterator[Finding]:
    """Refuse kernel threads that the real-time process would have to wait for."""
    reason = f"is not below the application's {priority} (rt_app.rt_process.priority)"
    if (tuning := config.get(RT_TUNING)) is not None:
        for name in KthreadPriorities.model_fields:
            own = getattr(tuning.kthread_priorities, name)
            if own >= priority:
                yield Finding(f"rt_tuning.kthread_priorities.{name}", own, reason, "use 2")
    if (kernel := config.get(RT_KERNEL)) is not None:
        for index, word in enumerate(kernel.parameters):
            name, _, value = word.partition("=")
            if name == RCU_PRIORITY and value.isdigit() and int(value) >= priority:
                yield Finding(f"rt_kernel.parameters.{index}", word, reason, f"use {name}=11")


def _watchdog_findings(settings: RtAppSettings) -> Iterator[Finding]:
    """Refuse a watchdog that fires before the health check it depends on could have answered."""
    failover, watchdog = settings.failover, settings.unit.watchdog
    needed = failover.health_check_interval_ms + failover.health_check_timeout_ms
    if watchdog.milliseconds <= needed:
        yield Finding(
            "rt_app.unit.watchdog",
            watchdog,
            f"is not longer than one health check (interval {failover.health_check_interval_ms} ms "
            f"+ timeout {failover.health_check_timeout_ms} ms): a healthy process would be killed",
            f"use {2 * needed}ms or more",
        )
    if failover.health_check_timeout_ms > failover.health_check_interval_ms:
        yield Finding(
            "rt_app.failover.health_check_timeout_ms",
            failover.health_check_timeout_ms,
            f"is longer than the interval of {failover.health_check_interval_ms} ms",
            f"use {failover.health_check_interval_ms // 2}",
        )


def _refusals(settings: RtAppSettings, view: FleetView, state: HostState) -> Iterator[CpuFinding]:
    """Refuse memory of a node that the process' cores are not on."""
    layout = view.layout
    if layout is None:
        return
    for key, process, cpus in (
        ("rt_process", settings.rt_process, layout.isolated),
        ("non_rt_process", settings.non_rt_process, layout.housekeeping),
    ):
        on_node = cpus & state.topology.nodes.get(process.numa_node, frozenset())
        # A binding that is only preferred holds when some of the cores are there.
        bound = cpus if process.strict_binding else on_node or cpus
        yield from check_node_binding(f"rt_app.{key}.numa_node", bound, process.numa_node, state.topology)


ROLE = Role(
    section=RT_APP,
    state=state,
    labels=Labels(accounts="user"),
    listens=(
        Listener(port=lambda settings: settings.rt_process.health_port, bound=Bound.LOOPBACK),
        Listener(port=lambda settings: settings.non_rt_process.health_port, bound=Bound.LOOPBACK),
        # The reference workload listens at reference.metrics_bind, the application itself where it likes.
        Listener(port=lambda settings: settings.rt_process.metrics_port, peers=(PROMETHEUS,), bound=Bound.EVERYWHERE),
        Listener(
            port=lambda settings: settings.non_rt_process.metrics_port, peers=(PROMETHEUS,), bound=Bound.EVERYWHERE
        ),
    ),
    scrapes=(
        Scrape(job="rt_process", port=lambda settings: settings.rt_process.metrics_port, of_tenant=True),
        Scrape(job="non_rt_process", port=lambda settings: settings.non_rt_process.metrics_port, of_tenant=True),
    ),
    findings=_findings,
    local_files=_local_files,
    refusals=_refusals,
)
