"""The typed settings of one host: the sum of its roles' settings, with every check across roles.

This is the model that `rtinfra.config.load_fleet` fills from YAML. A role finds its own section here and
reads settings from nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from pydantic import BaseModel, Field, ValidationInfo, model_validator

from roles.agents.model import AgentsSettings
from roles.alertmanager.model import AlertmanagerSettings
from roles.alloy.model import AlloySettings
from roles.base.model import BaseSettings
from roles.drift.model import DriftSettings
from roles.elasticsearch.model import ElasticsearchSettings
from roles.garage.model import GarageSettings
from roles.gateways.model import GatewaysSettings
from roles.grafana.model import GrafanaSettings
from roles.jaeger.model import JaegerSettings
from roles.kibana.model import KibanaSettings
from roles.loki.model import LokiSettings
from roles.mimir.model import MimirSettings
from roles.mirror_client.model import MirrorClientSettings
from roles.mirror_server.model import MirrorServerSettings
from roles.preflight.model import PreflightSettings
from roles.prometheus.model import PrometheusSettings
from roles.rt_app.model import RtAppSettings
from roles.rt_kernel.model import RtKernelSettings
from roles.rt_tuning.model import RtTuningSettings
from roles.site import MirrorSettings, TelemetrySettings
from roles.tempo.model import TempoSettings
from rtinfra.config import ABSENT, ConfigError, Finding, Fleet, load_fleet, report_findings
from rtinfra.config.types import CpuListText, Settings
from rtinfra.cpu import check_layout_offline

#: The group whose hosts get a real-time kernel, isolation, tuning and the application.
RT_GROUP = "rt_hosts"
#: Telemetry roles: a host runs one when it is in the group of that name, which also is the name of its section.
TELEMETRY_ROLES = (
    "agents",
    "gateways",
    "jaeger",
    "prometheus",
    "alertmanager",
    "grafana",
    "loki",
    "tempo",
    "mimir",
    "alloy",
    "elasticsearch",
    "kibana",
    "garage",
    "preflight",
)
#: Roles of the offline mirror; the names of their groups and sections too.
MIRROR_ROLES = ("mirror_server", "mirror_client")
#: Every group that has a meaning in deploy.py; others only carry settings.
KNOWN_GROUPS = ("all", RT_GROUP, *TELEMETRY_ROLES, *MIRROR_ROLES, "lab")


class CpuSettings(Settings):
    """The one CPU model: kernel command line, slices, units and the application's files derive from it."""

    isolated: CpuListText = Field(description="cores for real-time work, in kernel list grammar")
    housekeeping: CpuListText | None = Field(default=None, description="all other cores when null")
    count: int | None = Field(
        default=None, ge=1, le=8192, description="CPUs the host is expected to have; lets `check` see more"
    )


class PrerequisiteSettings(Settings):
    """What a host must have before anything is changed on it (RT-1)."""

    cores: int = Field(ge=1)
    memory_mb: int = Field(ge=1)


class BackendsSettings(Settings):
    """Bounds of all backend containers of a host together."""

    packages: tuple[str, ...]
    memory_max: str = Field(pattern=r"^([1-9][0-9]?|100)%$", description="MemoryMax= of their slice")
    cpu_weight: int = Field(ge=1, le=10000)


class HostConfig(Settings):
    """All settings of one host. Sections of roles that do not run on the host are absent."""

    base: BaseSettings
    telemetry: TelemetrySettings
    backends: BackendsSettings
    mirror: MirrorSettings
    drift: DriftSettings
    prerequisites: PrerequisiteSettings | None = None
    cpu: CpuSettings | None = None
    rt_kernel: RtKernelSettings | None = None
    rt_tuning: RtTuningSettings | None = None
    rt_app: RtAppSettings | None = None
    agents: AgentsSettings | None = None
    gateways: GatewaysSettings | None = None
    jaeger: JaegerSettings | None = None
    prometheus: PrometheusSettings | None = None
    alertmanager: AlertmanagerSettings | None = None
    grafana: GrafanaSettings | None = None
    loki: LokiSettings | None = None
    tempo: TempoSettings | None = None
    mimir: MimirSettings | None = None
    alloy: AlloySettings | None = None
    elasticsearch: ElasticsearchSettings | None = None
    kibana: KibanaSettings | None = None
    garage: GarageSettings | None = None
    mirror_server: MirrorServerSettings | None = None
    mirror_client: MirrorClientSettings | None = None
    preflight: PreflightSettings | None = None

    @model_validator(mode="after")
    def _cross_checks(self, info: ValidationInfo) -> HostConfig:
        context = info.context or {}
        findings = [
            *self._missing_sections(context.get("groups", ())),
            *self._cpu_findings(),
            *self._port_clashes(),
            *self._watchdog_findings(),
            *self._missing_files(context.get("root")),
        ]
        report_findings(findings, context)
        return self

    @property
    def sha256(self) -> str:
        """Hash of all these settings, to tell whether two of them are the same."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @property
    def rt(self) -> RtHostConfig:
        """The settings of a real-time host, with no section missing.

        Raises:
            TypeError: when the host is not in the group of real-time hosts.
        """
        return RtHostConfig.of(self)

    def _missing_sections(self, groups: tuple[str, ...]) -> Iterator[Finding]:
        required = {RT_GROUP: RtHostConfig.sections(), **{role: (role,) for role in (*TELEMETRY_ROLES, *MIRROR_ROLES)}}
        for group in groups:
            for section in required.get(group, ()):
                if getattr(self, section) is None:
                    yield Finding(
                        section,
                        ABSENT,
                        f"is required on a host of the group {group}",
                        f"restore the section `{section}:` in group_data/{group}.yaml",
                    )

    def _cpu_findings(self) -> Iterator[Finding]:
        if self.cpu is None:
            return
        for found in check_layout_offline(self.cpu.isolated, self.cpu.housekeeping, self.cpu.count):
            yield Finding(found.key, found.value, found.reason, found.suggestion, found.severity)

    def _port_clashes(self) -> Iterator[Finding]:
        """Refuse two services that claim one port on this host."""
        owner: dict[int, str] = {}
        for key, port in self.claimed_ports().items():
            if port in owner:
                yield Finding(
                    key,
                    port,
                    f"is already taken by {owner[port]} on this host",
                    f"use {_free_port(port, set(self.claimed_ports().values()))}",
                )
            else:
                owner[port] = key

    def claimed_ports(self) -> dict[str, int]:
        """Return every TCP port a service of ours listens on, by the configuration key that says so.

        In a model every field called `port` or ending in `_port` is one.
        """
        return dict(_ports(self))

    def _watchdog_findings(self) -> Iterator[Finding]:
        """Refuse a watchdog that fires before the health check it depends on could have answered."""
        if self.rt_app is None:
            return
        failover, watchdog = self.rt_app.failover, self.rt_app.unit.watchdog
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

    def _missing_files(self, root: Path | None) -> Iterator[Finding]:
        """Refuse files that are to be sent to the host and are not there. Relative to the project folder."""
        for key, name in self.local_files().items():
            if name is None:
                yield Finding(key, None, "must name a file for this kind of application", None)
            elif root is not None and not (root / name).is_file():
                yield Finding(key, name, f"is not a file below {root}", "put the file there or correct the name")

    def local_files(self) -> dict[str, str | None]:
        """Return the files of the control machine that this host's roles send, by configuration key."""
        files: dict[str, str | None] = {
            f"mirror.replacements.{index}": name for index, name in enumerate(self.mirror.replacements)
        }
        if self.rt_kernel is not None:
            files |= {f"rt_kernel.debs.{index}": name for index, name in enumerate(self.rt_kernel.debs)}
        if self.rt_app is not None:
            application = self.rt_app.application
            wanted = {"reference": (), "binary": ("rt_binary", "non_rt_binary"), "deb": ("deb",)}
            files |= {f"rt_app.application.{field}": getattr(application, field) for field in wanted[application.kind]}
        return files


@dataclass(frozen=True)
class RtHostConfig:
    """A host of the group of real-time hosts: the same sections, none of them absent."""

    base: BaseSettings
    prerequisites: PrerequisiteSettings
    cpu: CpuSettings
    rt_kernel: RtKernelSettings
    rt_tuning: RtTuningSettings
    rt_app: RtAppSettings

    @classmethod
    def sections(cls) -> tuple[str, ...]:
        """Names of the sections a real-time host must have."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def of(cls, config: HostConfig) -> RtHostConfig:
        """Narrow `config`; raises TypeError naming the first section that is absent."""
        found = {name: getattr(config, name) for name in cls.sections()}
        for name, section in found.items():
            if section is None:
                raise TypeError(f"no section {name}: not a host of the group {RT_GROUP}")
        return cls(**found)


def _ports(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, int]]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _ports(value, f"{prefix}{name}.")
        elif isinstance(value, int) and (name == "port" or name.endswith("_port")):
            yield f"{prefix}{name}", value


def _free_port(port: int, taken: set[int]) -> int:
    return next(candidate for candidate in range(port + 1, 65536) if candidate not in taken)


def load_hosts(root: Path, inventory: Path) -> Fleet[HostConfig]:
    """Load and validate every host of an inventory file or directory.

    Raises:
        ConfigError: with all problems found, each with its file and line.
    """
    fleet = load_fleet(root, inventory, HostConfig, known_groups=KNOWN_GROUPS)
    missing = [
        host.problem(f"hosts.{host.name}.ssh.{name}", str(path), "there is no such file on this machine", hint)
        for host in fleet.hosts.values()
        for name, path, hint in (
            ("key", host.ssh.key, "make one: `ssh-keygen -t ed25519`, then `ssh-copy-id` to the host"),
            ("known_hosts", host.ssh.known_hosts, "make it: `ssh-keyscan ADDRESS`, compared with the host's screen"),
        )
        if path is not None and not path.is_file()
    ]
    if missing:
        raise ConfigError(missing)
    return fleet
