"""The command line: which of the two programs this is, and its options."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple


class Role(NamedTuple):
    """What differs between the two programs."""

    name: str
    realtime: bool
    health_port: int
    metrics_port: int
    cycle_us: int
    default_service_name: str


RT_ROLE: Final = Role("rt_process", True, 8080, 9090, 1_000, "mxrc-rt")
NON_RT_ROLE: Final = Role("non_rt_process", False, 8081, 9091, 100_000, "mxrc-non-rt")


class Options(NamedTuple):
    """The command line, read and checked."""

    config: Path
    numa_config: Path
    failover_config: Path
    tracing_config: Path | None
    bind: str
    metrics_bind: str
    health_port: int
    metrics_port: int
    cycle_us: int
    deadline_us: int
    checkpoint_dir: Path
    log_file: Path
    service_name: str
    enable_faults: bool


def parse_options(argv: Sequence[str]) -> tuple[Options, Role]:
    """Read the command line; every option can also come from the environment as MXRC_<OPTION>."""
    # The role decides defaults of the other options, so it is looked for first.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    program_is_non_rt = Path(argv[0]).name.startswith("non_rt")
    first.add_argument("--role", choices=("rt", "non-rt"), default="non-rt" if program_is_non_rt else "rt")
    known, _ = first.parse_known_args(argv[1:])
    role = RT_ROLE if known.role == "rt" else NON_RT_ROLE

    parser = argparse.ArgumentParser(
        prog=role.name,
        parents=[first],
        allow_abbrev=False,
        description="Reference workload: stands in for MXRC's processes.",
        epilog="Every option with a value can also be given as environment variable MXRC_<OPTION>, "
        "for example MXRC_CYCLE_US=20000; MXRC_ENABLE_FAULTS=1 switches faults on.",
    )

    def add(name: str, kind: Callable[[str], object], default: str | None, text: str) -> None:
        value = os.environ.get("MXRC_" + name.upper().replace("-", "_"), default)
        parser.add_argument("--" + name, type=kind, default=value, required=value is None, help=text)

    add("config", Path, None, "cpu_affinity.json")
    add("numa-config", Path, None, "numa_binding.json")
    add("failover-config", Path, None, "failover_policy.json")
    add("tracing-config", _optional_path, "", "tracing_config.json; without it nothing is traced")
    add("bind", str, "127.0.0.1", "address /health and the task API listen on (%(default)s)")
    add("metrics-bind", str, "127.0.0.1", "address /metrics listens on (%(default)s)")
    add("health-port", _port, str(role.health_port), "port of /health and the task API (%(default)s)")
    add("metrics-port", _port, str(role.metrics_port), "port of /metrics (%(default)s)")
    add("cycle-us", _cycle_us, str(role.cycle_us), "period of the loop in microseconds (%(default)s)")
    add("deadline-us", int, "0", "a cycle done later than this after its release is a miss; 0: the period")
    add("checkpoint-dir", Path, "/var/mxrc/checkpoints", "directory of checkpoints (%(default)s)")
    add("log-file", Path, f"/var/log/mxrc/{role.name}.log", "JSON log (%(default)s)")
    add("service-name", str, "", "name of the service in traces and metrics")
    parser.add_argument(
        "--enable-faults",
        action="store_true",
        default=os.environ.get("MXRC_ENABLE_FAULTS", "").lower() in ("1", "true", "yes"),
        help="accept POST /api/v1/fault",
    )
    values = vars(parser.parse_args(argv[1:]))
    return Options(**{name: values[name] for name in Options._fields}), role


def _optional_path(text: str) -> Path | None:
    return Path(text) if text else None


def _port(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port, 1 to 65535")
    return value


def _cycle_us(text: str) -> int:
    value = int(text)
    if not 100 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 100 and 1000000 microseconds")
    return value
