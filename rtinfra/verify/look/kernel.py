"""The running kernel: which it is, how it was started, what it said meanwhile, its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rtinfra.verify.look.answer import Answer, read_files
from rtinfra.verify.questions import Questions

#: Kinds of rejection to look for in the kernel's log.
_LOG_PATTERN: Final = "Housekeeping:|isolcpus:|Unknown kernel command line|clocksource.*unstable|Marking TSC unstable"
# The ring buffer may have lost the lines of the boot; the journal has kept them.
_LOG: Final = f"""log=$(dmesg)
case $log in *'Linux version '*) ;; *) log=$(journalctl -k -b -o cat --no-pager) ;; esac
case $log in *'Linux version '*) echo complete ;; *) echo incomplete ;; esac
printf '%s\\n' "$log" | grep -E '{_LOG_PATTERN}'"""
_LOG_TIME: Final = re.compile(r"^\[ *[0-9.]+\] ")
_HUGE_PAGES: Final = "/sys/kernel/mm/transparent_hugepage/enabled"
_CLOCKSOURCE: Final = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
# Detectors whose timers would disturb, whether or not the settings set them.
_ALWAYS: Final = ("kernel.soft_watchdog", "kernel.nmi_watchdog")


@dataclass(frozen=True)
class Kernel:
    """The running kernel. `config` is its line about PREEMPT_RT; `log` are its complaints since the boot.

    `values` are files of one line under /proc/sys and /sys, by path; a file that does not exist is absent.
    """

    release: str
    version: str
    config: str
    command_line: tuple[str, ...]
    log: tuple[str, ...]
    log_is_complete: bool
    values: Mapping[str, str]

    def setting(self, key: str) -> str | None:
        """Return a sysctl's value; None when this kernel has no such key."""
        return self.values.get(sysctl_path(key))

    def parameter(self, name: str) -> str | None:
        """Return a module's parameter, `module.parameter`; None when this kernel does not show it."""
        path = parameter_path(name)
        return self.values.get(path) if path else None

    @property
    def transparent_hugepage(self) -> str | None:
        """The chosen one of always, madvise and never; None when this kernel has no such pages."""
        text = self.values.get(_HUGE_PAGES)
        return None if text is None else text.partition("[")[2].partition("]")[0]

    @property
    def clocksource(self) -> str:
        """The clock that time is read from."""
        return self.values.get(_CLOCKSOURCE, "nothing")


def sysctl_path(key: str) -> str:
    """Return the file behind a sysctl key."""
    return "/proc/sys/" + key.replace(".", "/")


def parameter_path(word: str) -> str | None:
    """Return the file in which a module shows a parameter from the kernel command line; None for other words."""
    name, _, _ = word.partition("=")
    module, dot, parameter = name.partition(".")
    return f"/sys/module/{module}/parameters/{parameter}" if dot else None


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for the kernel, its log, and the settings that ours name."""
    parameters = (path for word in questions.parameters if (path := parameter_path(word)))
    keys = dict.fromkeys((*_ALWAYS, *questions.sysctl))
    return {
        "kernel": "uname -r; uname -v",
        "kernel_config": (
            "grep -h '^CONFIG_PREEMPT_RT=' \"/boot/config-$(uname -r)\" || "
            "zcat /proc/config.gz | grep '^CONFIG_PREEMPT_RT='"
        ),
        "cmdline": "cat /proc/cmdline",
        "kernel_log": _LOG,
        "kernel_values": read_files([_HUGE_PAGES, _CLOCKSOURCE, *map(sysctl_path, keys), *parameters]),
    }


def read(answer: Answer) -> Kernel:
    """Read what `ask` asked."""
    release, version = [*answer.lines("kernel"), "", ""][:2]
    log = [_LOG_TIME.sub("", line) for line in answer.lines("kernel_log")]
    return Kernel(
        release=release,
        version=version,
        config=answer.line("kernel_config"),
        command_line=tuple(answer.line("cmdline").split()),
        log=tuple(log[1:]),
        log_is_complete=log[:1] == ["complete"],
        values=answer.files("kernel_values"),
    )
