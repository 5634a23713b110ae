"""Everything observed on one host at one moment, typed. Tests look at this and at nothing else."""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rtinfra.cpu import parse_cpu_list, parse_cpu_mask
from rtinfra.facts import http, sections
from rtinfra.facts.boot import Kept, Trial, parse_kept, parse_trial
from rtinfra.facts.host import HostState, parse_host_state
from rtinfra.facts.http import HttpAnswer, loopback
from rtinfra.verify.mirror import MirrorClientSeen, MirrorServerSeen, parse_client, parse_server

SCHED_OTHER: Final = 0
SCHED_FIFO: Final = 1
#: Numbers of scheduling policies, sched(7), by the words of the settings. systemd shows the numbers too.
SCHED_POLICIES: Final[Mapping[str, int]] = {"SCHED_OTHER": SCHED_OTHER, "SCHED_FIFO": SCHED_FIFO, "SCHED_RR": 2}

_PF_KTHREAD: Final = 0x00200000
_EXPOSURE = re.compile(r"for (\S+): ([0-9.]+)")
_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)(?: -?\d+)?$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_LIMIT = re.compile(r"(?P<name>Max [a-z-]+(?: [a-z]+)*?) {2,}(?P<soft>\S+) +(?P<hard>\S+)")
_LOG_TIME = re.compile(r"^\[ *[0-9.]+\] ")
_NODE_PAGES = re.compile(r" N(\d+)=(\d+)")
_PAGE_KB = re.compile(r" kernelpagesize_kB=(\d+)")
_ENTRY_ID = re.compile(r"menuentry_id_option'? '([^']+)'|--id '?([^' ]+)'?")
_ENTRY_TITLE = re.compile(r"(?:menuentry|submenu) '([^']*)'")


class SnapshotError(ValueError):
    """The host's answer lacks something that every Linux host can tell."""


@dataclass(frozen=True)
class Task:
    """One thread. `last_cpu` is where it ran last; `locked_kb` belongs to its whole process."""

    pid: int
    tid: int
    name: str
    is_kernel: bool
    cpus: frozenset[int]
    policy: int
    priority: int
    last_cpu: int
    locked_kb: int
    cgroup: str

    def __str__(self) -> str:
        return f"{self.name} (thread {self.tid} in {self.cgroup or 'the kernel'})"


@dataclass(frozen=True)
class Interrupt:
    """One interrupt line: who uses it, where it may go, where it goes.

    `arrivals` counts by CPU what arrived while the snapshot was taken.
    """

    number: int
    users: str
    requested: frozenset[int]
    effective: frozenset[int]
    is_movable: bool
    arrivals: Mapping[int, int]

    def __str__(self) -> str:
        return f"{self.number} ({self.users or 'unused'})"


@dataclass(frozen=True)
class Watchdog:
    """A hardware watchdog; `state` is `active` while somebody feeds it."""

    device: str
    identity: str
    state: str


@dataclass(frozen=True)
class ContainerState:
    """A container: its state in Podman's word, and every reference `repository@sha256:...` of its image."""

    state: str
    images: frozenset[str]


@dataclass(frozen=True)
class BootEntry:
    """A bootable entry of GRUB's menu."""

    path: tuple[str, ...]
    image: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class BootMenu:
    """GRUB's menu: every entry, and the path of identifiers of the one that boots by default."""

    entries: tuple[BootEntry, ...]
    default: str

    @property
    def default_entry(self) -> BootEntry | None:
        """The entry that boots when nobody chooses."""
        wanted = tuple(self.default.split(">"))
        if self.default.isdecimal():
            top = [entry for entry in self.entries if len(entry.path) == 1]
            return top[int(self.default)] if int(self.default) < len(top) else None
        return next((entry for entry in self.entries if entry.path == wanted), None)


@dataclass(frozen=True)
class Login:
    """A new login session of a user: groups, and hard limits by the kernel's names."""

    groups: tuple[str, ...]
    limits: Mapping[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """The newest checkpoint of the real-time process."""

    written: int
    text: str

    @property
    def content(self) -> dict[str, Any]:
        """Its JSON; empty when it is none."""
        return _json_object(self.text)

    @property
    def is_intact(self) -> bool:
        """Whether its checksum is right."""
        record = self.content
        checksum = record.pop("crc32", None)
        return bool(checksum == f"{binascii.crc32(json.dumps(record, sort_keys=True).encode()):08x}")


@dataclass(frozen=True)
class Memory:
    """Resident memory by NUMA node, in kB."""

    kb_by_node: Mapping[int, int]

    @property
    def total_kb(self) -> int:
        """All of it."""
        return sum(self.kb_by_node.values())

    def share(self, node: int) -> float:
        """Return the share on one node in percent."""
        return 100.0 * self.kb_by_node.get(node, 0) / self.total_kb if self.total_kb else 0.0


@dataclass(frozen=True)
class Snapshot:
    """One host at one moment.

    `directories` are mode, user and group of the programs' data directories by path, `data_files` some of the files
    in them with their sizes. `private_files` are mode and user of everything in directories that are for one account,
    by path. `drift` is the last result of the host's own drift checker, empty without one.
    `values` are files of one line under /proc and /sys, by path; a file that does not exist is absent. Unit and
    manager properties are systemd's, by name.
    """

    state: HostState
    machine_id_sha256: str
    host_key: str
    boot_id: str
    release: str
    kernel_version: str
    kernel_config: str
    machine: str
    virtualisation: str
    command_line: tuple[str, ...]
    values: Mapping[str, str]
    tasks: tuple[Task, ...]
    interrupts: tuple[Interrupt, ...]
    units: Mapping[str, Mapping[str, str]]
    manager: Mapping[str, str]
    system_state: str
    failed_units: tuple[str, ...]
    watchdogs: tuple[Watchdog, ...]
    watchdog_link: str
    kernel_log: tuple[str, ...]
    kernel_log_is_complete: bool
    boot_menu: BootMenu
    last_known_good: Kept | None
    trial: Trial | None
    packages: Mapping[str, str]
    has_libnuma: bool
    group_exists: bool
    login: Login | None
    dma_latency_access: str
    clock_tracking: tuple[str, ...]
    journal_usage: Mapping[str, int]
    journal_file: str
    logrotate_messages: tuple[str, ...]
    exposure: Mapping[str, float]
    uptime: float
    documents: Mapping[str, Mapping[str, Any]]
    command_lines: Mapping[str, tuple[str, ...]]
    process_users: tuple[str, ...]
    rt_limits: Mapping[str, str]
    memory: Memory
    private_memory: Memory
    numa_policies: frozenset[str]
    open_logs: tuple[str, ...]
    log_tails: tuple[str, ...]
    checkpoint_dir_access: str
    checkpoint: Checkpoint | None
    http: tuple[HttpAnswer, ...]
    containers: Mapping[str, ContainerState]
    directories: Mapping[str, str]
    data_files: Mapping[str, int]
    private_files: Mapping[str, str]
    filebeat: tuple[str, ...]
    mirror_client: MirrorClientSeen | None
    mirror_server: MirrorServerSeen | None
    drift: Mapping[str, Any]

    @property
    def is_virtual(self) -> bool:
        """Whether the host is a virtual machine, on which latency means nothing."""
        return self.virtualisation != "none"

    def cpus(self, path: str) -> frozenset[int]:
        """Return a value that is a CPU list; empty when it is empty or absent."""
        return _cpus(self.values.get(path, ""))

    def mask(self, path: str) -> frozenset[int]:
        """Return a value that is a CPU mask; empty when absent."""
        text = self.values.get(path, "")
        return parse_cpu_mask(text) if text else frozenset()

    def glob(self, pattern: str) -> dict[str, str]:
        """Return the values whose path matches a regular expression."""
        return {path: value for path, value in self.values.items() if re.fullmatch(pattern, path)}

    def unit(self, name: str) -> Mapping[str, str]:
        """Return the properties of a unit; empty when it was not asked for."""
        return self.units.get(name, {})

    def tasks_of(self, unit: str) -> tuple[Task, ...]:
        """Return the threads of all processes in a unit's control group."""
        return tuple(task for task in self.tasks if unit in task.cgroup.split("/"))

    def kernel_threads(self, pattern: str) -> tuple[Task, ...]:
        """Return the kernel threads whose name matches a regular expression."""
        return tuple(task for task in self.tasks if task.is_kernel and re.fullmatch(pattern, task.name))

    def answers(self, port: int, path: str) -> tuple[HttpAnswer, ...]:
        """Return the answers of a service on loopback."""
        return tuple(answer for answer in self.http if answer.url == loopback(port, path))

    def answer(self, url: str) -> HttpAnswer:
        """Return the last answer from a URL; raises KeyError when it was not asked."""
        return {answer.url: answer for answer in self.http}[url]

    def metrics(self, port: int) -> dict[str, float]:
        """Return the metrics of a port of loopback by name, the last sample of each."""
        return {sample.name: sample.value for answer in self.answers(port, "/metrics") for sample in samples(answer)}


@dataclass(frozen=True)
class Sample:
    """One line of metrics."""

    name: str
    labels: Mapping[str, str]
    value: float


def samples(answer: HttpAnswer) -> Iterator[Sample]:
    """Yield what an answer in Prometheus's text format holds."""
    for line in answer.body.splitlines():
        if match := _SAMPLE.match(line):
            labels = {name: re.sub(r"\\(.)", r"\1", value) for name, value in _LABEL.findall(match[2] or "")}
            yield Sample(match[1], labels, float(match[3]))


def parse(text: str) -> Snapshot:
    """Build a snapshot from the output of `rtinfra.verify.probe.script`.

    Raises:
        SnapshotError: a section that every Linux host fills is empty, so that controls about it would pass
            without having looked.
    """
    # Not splitlines(): names of threads may hold characters that it takes for line ends.
    lines = text.split("\n")
    found = sections.parse(lines)

    def one(name: str) -> str:
        return (found.get(name) or [""])[0].strip()

    def many(name: str) -> list[str]:
        return found.get(name, [])

    for needed in ("online", "kernel", "cmdline", "values", "thread_stat", "thread_status", "units", "end"):
        if not one(needed):
            raise SnapshotError(f"the host's answer has no {needed}: {text[-300:]!r}")
    values = dict(_named(many("values")))
    kernel_log = [_LOG_TIME.sub("", line) for line in many("kernel_log")]
    release, version = [*many("kernel"), ""][:2]
    return Snapshot(
        state=parse_host_state(lines),
        machine_id_sha256=one("machine_id").partition(" ")[0],
        host_key=one("host_key"),
        boot_id=one("boot_id"),
        release=release,
        kernel_version=version,
        kernel_config=one("kernel_config"),
        machine=" ".join(dict.fromkeys(line.strip() for line in many("machine") if line.strip())),
        virtualisation=one("virtualisation") or "unknown",
        command_line=tuple(one("cmdline").split()),
        values=values,
        tasks=tuple(_tasks(many("thread_stat"), many("thread_status"), many("cgroups"))),
        interrupts=tuple(_interrupts(values, many("immovable"), many("interrupts_before"), many("interrupts_after"))),
        units={block["Id"]: block for block in sections.blocks(many("units")) if "Id" in block},
        manager=next(sections.blocks(many("manager")), {}),
        system_state=one("system_state"),
        failed_units=tuple(line.split()[0] for line in many("failed_units") if line.strip()),
        watchdogs=tuple(_watchdogs(values)),
        watchdog_link=one("watchdog_link"),
        kernel_log=tuple(kernel_log[1:]),
        kernel_log_is_complete=kernel_log[:1] == ["complete"],
        boot_menu=_boot_menu(many("boot_menu"), many("grubenv")),
        last_known_good=parse_kept(many("kept")),
        trial=parse_trial(many("trial")),
        packages=dict(sections.pairs(many("packages"))),
        has_libnuma=bool(one("libraries")),
        group_exists=bool(one("group")),
        login=_login(many("login")),
        dma_latency_access=one("dma_latency"),
        clock_tracking=tuple(one("clock_tracking").split(",")) if one("clock_tracking") else (),
        journal_usage=_journal_usage(many("journal_usage")),
        journal_file=one("journal_file"),
        logrotate_messages=tuple(many("logrotate")),
        exposure={match[1]: float(match[2]) for line in many("exposure") if (match := _EXPOSURE.search(line))},
        uptime=float((one("uptime").split() or ["0"])[0]),
        documents={
            name.removeprefix("json "): _json_object("\n".join(content))
            for name, content in found.items()
            if name.startswith("json ")
        },
        command_lines={
            "rt_process": tuple(many("rt_cmdline")),
            "non_rt_process": tuple(many("non_rt_cmdline")),
        },
        process_users=tuple(many("rt_uid")),
        rt_limits=_limits(many("rt_limits")),
        memory=_memory(many("numa_maps")),
        private_memory=_memory(line for line in many("numa_maps") if " file=" not in line),
        numa_policies=frozenset(line.split()[1] for line in many("numa_maps") if len(line.split()) > 1),
        open_logs=tuple(many("open_logs")),
        log_tails=tuple(many("log_tails")),
        checkpoint_dir_access=one("checkpoint_dir"),
        checkpoint=_checkpoint(many("checkpoints"), many("newest_checkpoint")),
        http=tuple(
            answer
            for name in ("http_early", "http", "http_telemetry", "http_mirror")
            for answer in http.parse(many(name))
        ),
        containers=dict(_containers(many("containers"), many("images"))),
        directories=dict(sections.pairs(many("directories"))),
        data_files={path: int(size) for size, path in sections.pairs(many("data_files")) if size.isdecimal()},
        private_files=dict(sections.pairs(many("private_files"))),
        filebeat=tuple(line for line in many("filebeat") if line.strip()),
        mirror_client=parse_client(found),
        mirror_server=parse_server(found),
        drift=_json_object("\n".join(many("drift"))),
    )


def _cpus(text: str) -> frozenset[int]:
    # nohz_full prints "(null)" on a kernel that could, but was not told to.
    return parse_cpu_list(text, None) if text and text != "(null)" else frozenset()


def _named(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield path and line of `grep -HZ`."""
    for line in lines:
        path, separator, value = line.partition("\0")
        if separator:
            yield path, value.strip()


def _tasks(stat: Iterable[str], status: Iterable[str], cgroups: Iterable[str]) -> Iterator[Task]:
    allowed: dict[int, frozenset[int]] = {}
    locked_kb: dict[int, int] = {}
    for path, line in _named(status):
        tid = int(path.split("/")[4])
        key, _, value = line.partition(":")
        if key == "Cpus_allowed_list":
            allowed[tid] = _cpus(value.strip())
        else:
            locked_kb[tid] = int(value.split()[0])
    group_of = {int(path.split("/")[2]): line.removeprefix("0::") for path, line in _named(cgroups)}
    for path, line in _named(stat):
        pid, tid = int(path.split("/")[2]), int(path.split("/")[4])
        if tid not in allowed:
            continue  # ended between the two looks
        # The name is in parentheses and may hold some itself.
        head, _, tail = line.rpartition(") ")
        fields = tail.split()
        yield Task(
            pid=pid,
            tid=tid,
            name=head.partition("(")[2],
            # Numbers of fields as in proc_pid_stat(5), which counts from 1; `fields` begins with the third.
            is_kernel=bool(int(fields[9 - 3]) & _PF_KTHREAD),
            cpus=allowed[tid],
            last_cpu=int(fields[39 - 3]),
            priority=int(fields[40 - 3]),
            policy=int(fields[41 - 3]),
            locked_kb=locked_kb.get(tid, 0),
            cgroup=group_of.get(pid, ""),
        )


def _interrupts(
    values: Mapping[str, str], immovable: Iterable[str], before: list[str], after: list[str]
) -> Iterator[Interrupt]:
    fixed = {int(line) for line in immovable if line.strip().isdecimal()}
    counts_before, counts_after = _interrupt_counts(before), _interrupt_counts(after)
    for path, text in values.items():
        match = re.fullmatch(r"/proc/irq/(\d+)/smp_affinity_list", path)
        if match is None:
            continue
        number = int(match[1])
        earlier = counts_before.get(number, {})
        yield Interrupt(
            number=number,
            users=values.get(f"/sys/kernel/irq/{number}/actions", ""),
            requested=_cpus(text),
            effective=_cpus(values.get(f"/proc/irq/{number}/effective_affinity_list", "")),
            is_movable=number not in fixed,
            arrivals={cpu: count - earlier.get(cpu, 0) for cpu, count in counts_after.get(number, {}).items()},
        )


def _interrupt_counts(lines: list[str]) -> dict[int, dict[int, int]]:
    """Read /proc/interrupts: for each numbered interrupt the count of every online CPU."""
    if not lines:
        return {}
    cpus = [int(word.removeprefix("CPU")) for word in lines[0].split()]
    counts = {}
    for line in lines[1:]:
        number, _, rest = line.partition(":")
        if number.strip().isdecimal():
            counts[int(number)] = dict(zip(cpus, map(int, rest.split()[: len(cpus)]), strict=False))
    return counts


def _watchdogs(values: Mapping[str, str]) -> Iterator[Watchdog]:
    for path, identity in values.items():
        if match := re.fullmatch(r"/sys/class/watchdog/(watchdog\d+)/identity", path):
            state = values.get(f"/sys/class/watchdog/{match[1]}/state", "")
            yield Watchdog(device=f"/dev/{match[1]}", identity=identity, state=state)


def _boot_menu(lines: Iterable[str], environment: Iterable[str]) -> BootMenu:
    entries: list[BootEntry] = []
    default = ""
    submenus: list[str] = []
    entry: str | None = None
    for line in lines:
        stripped = line.strip()
        if stripped.startswith("set default="):
            value = stripped.partition("=")[2].strip("\"'")
            # `${next_entry}` is a one-shot choice; the default is the last word, from the file or from grubenv.
            default = value if value != "${next_entry}" else default
        elif stripped.startswith("submenu "):
            submenus.append(_entry_id(stripped))
        elif stripped.startswith("menuentry "):
            entry = _entry_id(stripped)
        elif stripped.startswith("linux") and entry is not None:
            image, *words = stripped.split()[1:]
            entries.append(BootEntry((*submenus, entry), image, tuple(words)))
        elif stripped.startswith("}"):
            if entry is not None:
                entry = None
            elif submenus:
                submenus.pop()
    if default == "${saved_entry}":
        default = next((line.partition("=")[2] for line in environment), "0")
    return BootMenu(tuple(entries), default)


def _entry_id(line: str) -> str:
    if match := _ENTRY_ID.search(line):
        return match[1] or match[2]
    title = _ENTRY_TITLE.search(line)
    return title[1] if title else ""


def _login(lines: list[str]) -> Login | None:
    return Login(tuple(lines[0].split()), _limits(lines[1:])) if lines else None


def _limits(lines: Iterable[str]) -> dict[str, str]:
    """Read /proc/PID/limits: hard limits by name without `Max `."""
    return {match["name"].removeprefix("Max "): match["hard"] for line in lines if (match := _LIMIT.match(line))}


def _journal_usage(lines: Iterable[str]) -> dict[str, int]:
    """Return the bounds journald announced last for its files on disk."""
    usage: dict[str, int] = {}
    for line in lines:
        record = _json_object(line)
        if record.get("JOURNAL_NAME") == "System Journal":
            usage = {key: int(record[key]) for key in ("MAX_USE", "DISK_KEEP_FREE") if key in record}
    return usage


def _memory(lines: Iterable[str]) -> Memory:
    """Sum resident memory by node, over all given mappings, as `numastat -p` does."""
    counted: dict[int, int] = {}
    for line in lines:
        size = _PAGE_KB.search(line)
        for node, pages in _NODE_PAGES.findall(line):
            counted[int(node)] = counted.get(int(node), 0) + int(pages) * (int(size[1]) if size else 4)
    return Memory(counted)


def _checkpoint(listing: Iterable[str], content: list[str]) -> Checkpoint | None:
    times = [int(line.split()[0]) for line in listing if line.strip()]
    return Checkpoint(max(times), "\n".join(content)) if times else None


def _containers(lines: Iterable[str], images: Iterable[str]) -> Iterator[tuple[str, ContainerState]]:
    """Join containers with the references of their images; Podman writes an image's id with `sha256:` or without."""
    references: dict[str, set[str]] = {}
    for identifier, reference in sections.pairs(images):
        references.setdefault(identifier.removeprefix("sha256:"), set()).add(reference)
    for line in lines:
        name, identifier, state = [*line.split(), "", "", ""][:3]
        if name:
            yield name, ContainerState(state, frozenset(references.get(identifier.removeprefix("sha256:"), ())))


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
