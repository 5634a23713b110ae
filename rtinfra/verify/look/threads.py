"""Every thread of the host: whose it is, where it may run, how it is scheduled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rtinfra.verify.look.answer import Answer, cpu_list, named
from rtinfra.verify.questions import Questions

SCHED_OTHER: Final = 0
SCHED_FIFO: Final = 1
#: Above every SCHED_FIFO priority, with none of its own.
SCHED_DEADLINE: Final = 6
#: Numbers of scheduling policies, sched(7), by the words of the settings. systemd shows the numbers too.
SCHED_POLICIES: Final[Mapping[str, int]] = {"SCHED_OTHER": SCHED_OTHER, "SCHED_FIFO": SCHED_FIFO, "SCHED_RR": 2}

# include/linux/sched.h
_PF_WQ_WORKER: Final = 0x00000020
_PF_KTHREAD: Final = 0x00200000


@dataclass(frozen=True)
class Thread:
    """One thread. `is_worker` tells that it does the kernel's deferred work; `last_cpu` is where it ran last."""

    pid: int
    tid: int
    name: str
    is_kernel: bool
    is_worker: bool
    cpus: frozenset[int]
    policy: int
    priority: int
    last_cpu: int
    cgroup: str

    def __str__(self) -> str:
        return f"{self.name} (thread {self.tid} in {self.cgroup or 'the kernel'})"


@dataclass(frozen=True)
class Threads:
    """All threads of the host."""

    all: tuple[Thread, ...]

    def of(self, unit: str) -> tuple[Thread, ...]:
        """Return the threads of all processes in a unit's control group."""
        return tuple(thread for thread in self.all if unit in thread.cgroup.split("/"))

    def kernel(self, pattern: str) -> tuple[Thread, ...]:
        """Return the kernel threads whose name matches a regular expression."""
        return tuple(thread for thread in self.all if thread.is_kernel and re.fullmatch(pattern, thread.name))

    def number(self, tid: int) -> Thread:
        """Return one by its number; raises KeyError when there is none."""
        return {thread.tid: thread for thread in self.all}[tid]


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for three files of every thread or process, with one fork each."""
    return {
        "thread_stat": "grep -sHZ '' /proc/[0-9]*/task/[0-9]*/stat",
        "thread_status": "grep -sHZ '^Cpus_allowed_list:' /proc/[0-9]*/task/[0-9]*/status",
        "cgroups": "grep -sHZ '^0::' /proc/[0-9]*/cgroup",
    }


def read(answer: Answer) -> Threads:
    """Read what `ask` asked."""
    return Threads(tuple(_threads(answer.lines("thread_stat"), answer.lines("thread_status"), answer.lines("cgroups"))))


def _threads(stat: Iterable[str], status: Iterable[str], cgroups: Iterable[str]) -> Iterator[Thread]:
    allowed: dict[int, frozenset[int]] = {}
    for path, line in named(status):
        allowed[int(path.split("/")[4])] = cpu_list(line.partition(":")[2].strip())
    group_of = {int(path.split("/")[2]): line.removeprefix("0::") for path, line in named(cgroups)}
    for path, line in named(stat):
        pid, tid = int(path.split("/")[2]), int(path.split("/")[4])
        if tid not in allowed:
            continue  # ended between the two looks
        # The name is in parentheses and may hold some itself.
        head, _, tail = line.rpartition(") ")
        fields = tail.split()
        # Numbers of fields as in proc_pid_stat(5), which counts from 1; `fields` begins with the third.
        flags = int(fields[9 - 3])
        yield Thread(
            pid=pid,
            tid=tid,
            name=head.partition("(")[2],
            is_kernel=bool(flags & _PF_KTHREAD),
            is_worker=bool(flags & _PF_WQ_WORKER),
            cpus=allowed[tid],
            last_cpu=int(fields[39 - 3]),
            priority=int(fields[40 - 3]),
            policy=int(fields[41 - 3]),
            cgroup=group_of.get(pid, ""),
        )
