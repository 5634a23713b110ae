"""CPUs as the kernel divides them: the tick, deferred work, speed and sleep."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rtinfra.cpu import parse_cpu_mask
from rtinfra.verify.look.answer import Answer, cpu_list, read_files
from rtinfra.verify.questions import Questions

_CPU: Final = "/sys/devices/system/cpu"
_WORK: Final = "/sys/devices/virtual/workqueue"
_FILES: Final = (
    f"{_CPU}/nohz_full",
    *(f"{_CPU}/cpu[0-9]*/cpufreq/scaling_governor", f"{_CPU}/cpu[0-9]*/cpufreq/scaling_driver"),
    f"{_CPU}/cpuidle/current_driver",
    *(f"{_WORK}/cpumask", f"{_WORK}/*/cpumask"),
)


@dataclass(frozen=True)
class Cpus:
    """What the kernel does with each CPU; that they are isolated is seen in the control groups (slices.py).

    `work` are the CPUs of unbound deferred work at all, `work_queues` those of each queue by its name. `governors` and
    `frequency_drivers` are of all CPUs together, empty where the speed cannot be set. `idle_driver` is `none` where
    the processor does not sleep. `dma_latency_access` is mode and group of the device that forbids sleep.
    """

    nohz_full: frozenset[int]
    work: frozenset[int]
    work_queues: Mapping[str, frozenset[int]]
    governors: frozenset[str]
    frequency_drivers: frozenset[str]
    idle_driver: str
    dma_latency_access: str


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for the files in which the kernel shows it."""
    return {"cpu_values": read_files(_FILES), "dma_latency": "stat -c '%a %G' /dev/cpu_dma_latency"}


def read(answer: Answer) -> Cpus:
    """Read what `ask` asked."""
    values = answer.files("cpu_values")

    def all_of(name: str) -> frozenset[str]:
        return frozenset(text for path, text in values.items() if path.endswith(f"/cpufreq/{name}"))

    def mask(text: str) -> frozenset[int]:
        return parse_cpu_mask(text) if text else frozenset()

    queues = {
        match[1]: text for path, text in values.items() if (match := re.fullmatch(rf"{_WORK}/(.+)/cpumask", path))
    }
    return Cpus(
        nohz_full=cpu_list(values.get(f"{_CPU}/nohz_full", "")),
        work=mask(values.get(f"{_WORK}/cpumask", "")),
        work_queues={name: mask(text) for name, text in queues.items()},
        governors=all_of("scaling_governor"),
        frequency_drivers=all_of("scaling_driver"),
        idle_driver=values.get(f"{_CPU}/cpuidle/current_driver", "none"),
        dma_latency_access=answer.line("dma_latency"),
    )
