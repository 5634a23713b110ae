"""Typed settings of the `rt_app` role (requirements RT-4 to RT-9)."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from roles.shared import RT_GROUP
from rtinfra.config.host_types import BindAddress, OwnAccount, OwnFolder, PackageName, Pause, PrintedName, Silence
from rtinfra.config.sections import Section
from rtinfra.config.types import Port, RtPriority, Settings


class ApplicationSource(Settings):
    """What runs as `rt_process` and `non_rt_process`."""

    kind: Literal["reference", "binary", "deb"] = Field(
        description="the shipped reference workload, two local binaries, or a local package"
    )
    rt_binary: str | None = Field(description="kind binary: local file for /usr/local/bin/rt_process")
    non_rt_binary: str | None = Field(description="kind binary: local file for /usr/local/bin/non_rt_process")
    deb: str | None = Field(description="kind deb: local .deb that installs both programs")
    packages: tuple[PackageName, ...] = Field(description="Debian packages the application needs (libraries)")


class ReferenceSettings(Settings):
    """How the reference workload runs; only used with application.kind = reference."""

    cycle_us: int = Field(ge=100, le=1_000_000, description="period of the real-time loop in microseconds")
    metrics_bind: BindAddress = Field(description="address /metrics listens on; everything else is on loopback")
    faults: bool = Field(description="accept POST /api/v1/fault (hang, crash, deadline misses) for tests")


class ProcessSettings(Settings):
    """One of the two processes: scheduling and memory placement (cpu_affinity.json, numa_binding.json)."""

    isolation_mode: Literal["NONE", "ISOLCPUS", "CGROUPS", "HYBRID"]
    is_exclusive: bool
    policy: Literal["SCHED_FIFO", "SCHED_RR", "SCHED_OTHER"]
    priority: int = Field(ge=0, le=99)
    numa_node: int = Field(ge=0)
    memory_policy: Literal["LOCAL", "PREFERRED", "BIND", "INTERLEAVE"]
    strict_binding: bool
    migrate_pages: bool
    health_port: Port
    metrics_port: Port


class RtProcessSettings(ProcessSettings):
    """The real-time process: a real-time policy with a real-time priority."""

    policy: Literal["SCHED_FIFO", "SCHED_RR"]
    priority: RtPriority


class NonRtProcessSettings(ProcessSettings):
    """The other process: no real-time policy."""

    policy: Literal["SCHED_OTHER"]
    priority: Literal[0]


class FailoverSettings(Settings):
    """failover_policy.json; the restart limits of the unit come from here too."""

    health_check_interval_ms: int = Field(gt=0)
    health_check_timeout_ms: int = Field(gt=0)
    failure_threshold: int = Field(gt=0)
    restart_delay_ms: int = Field(ge=0)
    max_restart_count: int = Field(gt=0)
    restart_window_sec: int = Field(gt=0)
    enable_state_recovery: bool
    checkpoint_interval_sec: int = Field(gt=0)
    enable_leader_election: bool


class InstrumentationSettings(Settings):
    """Which parts of the application create spans."""

    eventbus: bool
    task_executor: bool
    rt_cycle: bool


class TracingSettings(Settings):
    """tracing_config.json."""

    service_name: PrintedName
    sampling_rate: float = Field(ge=0, le=1)
    endpoint: str | None = Field(
        pattern=r"^http://[^\s/]+(:\d+)?$",
        description="OTLP over HTTP, without a path; null: the collector on this host",
    )
    propagator: Literal["W3C"]
    instrumentation: InstrumentationSettings


class UnitSettings(Settings):
    """systemd's part in keeping the real-time process alive."""

    watchdog: Silence = Field(description="WatchdogSec=: a process silent for this long is killed")
    restart_delay: Pause = Field(description="RestartSec=")


class LogSettings(Settings):
    """Rotation of /var/log/mxrc/*.log, by rename so that log shippers lose nothing."""

    max_size_mb: int = Field(gt=0)
    keep: int = Field(ge=1, description="rotated files kept; for an outage the files are the queue")


class RtAppSettings(Settings):
    """Settings of the `rt_app` role."""

    application: ApplicationSource
    reference: ReferenceSettings
    user: OwnAccount
    config_dir: OwnFolder
    state_dir: OwnFolder
    log_dir: OwnFolder
    rt_process: RtProcessSettings
    non_rt_process: NonRtProcessSettings
    failover: FailoverSettings
    tracing: TracingSettings
    unit: UnitSettings
    log: LogSettings


#: Key to the settings of this role.
RT_APP: Final = Section("rt_app", RtAppSettings, RT_GROUP)
#: Units of the two processes.
RT_UNIT: Final = "mxrc-rt.service"
NON_RT_UNIT: Final = "mxrc-non-rt.service"
