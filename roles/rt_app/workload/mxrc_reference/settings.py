"""The four configuration files: read, checked, and errors that name file and key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeGuard

from .cli import RT_ROLE, Options, Role


class ConfigError(Exception):
    """A configuration file or option that cannot be used; the text names file and key."""


class AffinitySettings(NamedTuple):
    """cpu_affinity.json, the section of this process."""

    cpu_cores: list[int]
    priority: int
    policy: str
    isolation_mode: str
    is_exclusive: bool


class NumaSettings(NamedTuple):
    """numa_binding.json, the section of this process. systemd applies the binding; here it is measured."""

    numa_node: int
    memory_policy: str
    strict_binding: bool
    migrate_pages: bool
    cpu_cores_hint: list[int]


class FailoverSettings(NamedTuple):
    """failover_policy.json. systemd does the restarts; here are the self check and the checkpoints."""

    health_check_interval_ms: int
    health_check_timeout_ms: int
    failure_threshold: int
    restart_delay_ms: int
    max_restart_count: int
    restart_window_sec: int
    enable_state_recovery: bool
    checkpoint_interval_sec: int
    enable_leader_election: bool


class TracingSettings(NamedTuple):
    """tracing_config.json. An empty endpoint switches the export off."""

    service_name: str
    sampling_rate: float
    endpoint: str
    eventbus: bool
    task_executor: bool
    rt_cycle: bool


class Settings(NamedTuple):
    """Everything from the four files, and what in them was ignored."""

    affinity: AffinitySettings
    numa: NumaSettings
    failover: FailoverSettings
    tracing: TracingSettings
    warnings: list[str]


class Section:
    """One JSON object of a configuration file, read key by key with errors that name file and key."""

    def __init__(self, path: Path, name: str, values: Mapping[str, object]) -> None:
        self._path = path
        self._name = name
        self._values = values
        self._read: set[str] = set()

    @classmethod
    def load(cls, path: Path) -> Section:
        """Read a whole file as one section."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{path}: not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: must be a JSON object")
        return cls(path, "", values)

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self._values

    def section(self, key: str, *, required: bool = True) -> Section:
        """Return the object below a key; an empty one when it may be absent."""
        self._read.add(key)
        value = self._values.get(key, None if required else {})
        if not isinstance(value, dict):
            name = self._full(key)
            problem = f'missing key "{name}"' if value is None else f'"{name}" must be an object'
            raise ConfigError(f"{self._path}: {problem}")
        return Section(self._path, self._full(key), value)

    def integer(self, key: str, minimum: int, maximum: int | None = None) -> int:
        """Return a whole number within bounds."""
        value = self._required(key)
        if not is_int(value) or value < minimum or (maximum is not None and value > maximum):
            bounds = f"at least {minimum}" if maximum is None else f"{minimum} to {maximum}"
            raise self._bad(key, value, f"a whole number, {bounds}")
        return value

    def number(self, key: str, minimum: float, maximum: float) -> float:
        """Return a number within bounds."""
        value = self._required(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
            raise self._bad(key, value, f"a number, {minimum} to {maximum}")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Return true or false; an error without a default when absent."""
        value = self._required(key) if default is None else self._optional(key, default)
        if not isinstance(value, bool):
            raise self._bad(key, value, "true or false")
        return value

    def text(self, key: str, default: str | None = None, choices: Iterable[str] = ()) -> str:
        """Return a text; an error without a default when absent."""
        value = self._required(key) if default is None else self._optional(key, default)
        if not isinstance(value, str) or (choices and value not in choices):
            raise self._bad(key, value, f"one of {', '.join(choices)}" if choices else "a text")
        return value

    def cores(self, key: str, default: list[int] | None = None) -> list[int]:
        """Return a list of CPU numbers in order; an error without a default when absent."""
        value = self._required(key) if default is None else self._optional(key, default)
        if not isinstance(value, list) or not value or not all(is_int(core) and core >= 0 for core in value):
            raise self._bad(key, value, "a list of CPU numbers")
        return sorted(set(value))

    def unknown(self) -> list[str]:
        """Return a sentence for every key nobody asked for."""
        names = sorted(set(self._values) - self._read)
        return [f'{self._path}: unknown key "{self._full(name)}" ignored' for name in names]

    def _required(self, key: str) -> object:
        self._read.add(key)
        if key not in self._values:
            raise ConfigError(f'{self._path}: missing key "{self._full(key)}"')
        return self._values[key]

    def _optional(self, key: str, default: object) -> object:
        self._read.add(key)
        return self._values.get(key, default)

    def _full(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def _bad(self, key: str, value: object, wanted: str) -> ConfigError:
        return ConfigError(f'{self._path}: "{self._full(key)}" is {json.dumps(value)}, must be {wanted}')


def is_int(value: object) -> TypeGuard[int]:
    """Whether a JSON value is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def load_settings(options: Options, role: Role) -> Settings:
    """Read and check the configuration files.

    Raises:
        ConfigError: a file is missing or malformed, or a key is missing or out of range.
    """
    warnings: list[str] = []

    section = Section.load(options.config).section(role.name)
    affinity = AffinitySettings(
        cpu_cores=section.cores("cpu_cores"),
        priority=section.integer("priority", 0, 99),
        policy=section.text("policy", choices=("SCHED_FIFO", "SCHED_RR", "SCHED_OTHER")),
        isolation_mode=section.text("isolation_mode", "NONE"),
        is_exclusive=section.flag("is_exclusive", False),
    )
    if (affinity.policy == "SCHED_OTHER") != (affinity.priority == 0):
        raise ConfigError(
            f'{options.config}: "{role.name}.priority" is {affinity.priority}, which does not go with policy '
            f"{affinity.policy} (SCHED_OTHER: 0, SCHED_FIFO and SCHED_RR: 1 to 99)"
        )
    warnings += section.unknown()

    section = Section.load(options.numa_config).section(role.name)
    numa = NumaSettings(
        numa_node=section.integer("numa_node", 0),
        memory_policy=section.text("memory_policy", "LOCAL"),
        strict_binding=section.flag("strict_binding", False),
        migrate_pages=section.flag("migrate_pages", False),
        cpu_cores_hint=section.cores("cpu_cores_hint", affinity.cpu_cores),
    )
    if numa.cpu_cores_hint != affinity.cpu_cores:
        warnings.append(
            f"{options.numa_config}: cpu_cores_hint {numa.cpu_cores_hint} differs from cpu_cores "
            f"{affinity.cpu_cores} in {options.config}; the latter counts"
        )
    warnings += section.unknown()

    # The policy may speak of the real-time process only; then it holds for both.
    policies = Section.load(options.failover_config)
    section = policies.section(role.name if policies.has(role.name) else RT_ROLE.name)
    failover = FailoverSettings(
        health_check_interval_ms=section.integer("health_check_interval_ms", 1),
        health_check_timeout_ms=section.integer("health_check_timeout_ms", 1),
        failure_threshold=section.integer("failure_threshold", 1),
        restart_delay_ms=section.integer("restart_delay_ms", 0),
        max_restart_count=section.integer("max_restart_count", 1),
        restart_window_sec=section.integer("restart_window_sec", 1),
        enable_state_recovery=section.flag("enable_state_recovery"),
        checkpoint_interval_sec=section.integer("checkpoint_interval_sec", 1),
        enable_leader_election=section.flag("enable_leader_election", False),
    )
    if failover.enable_leader_election:
        warnings.append(f"{options.failover_config}: enable_leader_election has no effect in this workload")
    warnings += section.unknown()

    if options.tracing_config is None:
        tracing = TracingSettings(role.default_service_name, 0.0, "", False, False, False)
    else:
        tracing = _load_tracing(options.tracing_config, role, warnings)
    if options.service_name:
        tracing = tracing._replace(service_name=options.service_name)
    return Settings(affinity, numa, failover, tracing, warnings)


def _load_tracing(path: Path, role: Role, warnings: list[str]) -> TracingSettings:
    section = Section.load(path)
    service_name = section.text("service_name")
    sampling_rate = section.number("sampling_rate", 0.0, 1.0)
    propagator = section.text("propagator", "W3C")
    if propagator.upper() != "W3C":
        warnings.append(f'{path}: propagator "{propagator}" is not supported, W3C is used')

    exporter = section.section("exporter")
    kind = exporter.text("type", "OTLP")
    exporter.text("protocol", "http")
    endpoint = exporter.text("endpoint", "")
    if not kind.upper().startswith("OTLP") or not re.fullmatch(r"http://[^\s/]+(/\S*)?", endpoint):
        warnings.append(f'{path}: exporter type "{kind}" with endpoint "{endpoint}": spans are not exported')
        endpoint = ""

    instrumentation = section.section("instrumentation", required=False)
    settings = TracingSettings(
        # The file names the service of the real-time process.
        service_name=service_name if role.realtime else role.default_service_name,
        sampling_rate=sampling_rate,
        endpoint=endpoint,
        eventbus=instrumentation.flag("eventbus", True),
        task_executor=instrumentation.flag("task_executor", True),
        rt_cycle=instrumentation.flag("rt_cycle", True),
    )
    warnings += [*section.unknown(), *exporter.unknown(), *instrumentation.unknown()]
    return settings
