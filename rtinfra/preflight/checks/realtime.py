"""Is this a real-time host right now, as the kernel says: PREEMPT_RT, isolated cores, the application on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rtinfra.cpu import format_cpu_list, parse_cpu_list
from rtinfra.preflight.check import Check, Result, Status
from rtinfra.preflight.settings import CheckSettings, RealtimeSettings


def checks(settings: CheckSettings) -> Iterator[Check]:
    """One check, on hosts that are to be real-time hosts."""
    realtime = settings.realtime
    if realtime is not None:
        yield Check("realtime", lambda _: _run(realtime, Path("/"), os.uname().version))


def _run(settings: RealtimeSettings, root: Path, kernel: str) -> Result:
    wrong = [*_kernel(kernel), *_cores(settings, root), *_units(settings, root)]
    if wrong:
        next_step = "run `rtinfra verify` for this host: it says what to do about each; a deploy usually mends it"
        return Result(Status.FAIL, "; ".join(wrong), next_step)
    cores = format_cpu_list(_isolated(root))
    return Result(Status.PASS, f"real-time kernel, isolated cores {cores}, {', '.join(settings.units)} active")


def _kernel(version: str) -> Iterator[str]:
    # uname -v; not /sys/kernel/realtime, which only kernels with the patch set of before 6.12 have.
    if "PREEMPT_RT" not in version.split():
        yield "the running kernel is not PREEMPT_RT"


def _cores(settings: RealtimeSettings, root: Path) -> Iterator[str]:
    cpu = root / "sys/devices/system/cpu"
    isolated = _isolated(root)
    if not isolated:
        yield "no core is isolated"
        return
    if settings.housekeeping is not None:
        online = _cpus(_text(cpu / "online"))
        required = online - parse_cpu_list(settings.housekeeping, online)
        if isolated != required:
            yield f"isolated cores are {format_cpu_list(isolated)}, and should be {format_cpu_list(required)}"
    ticks_off = _cpus(_text(cpu / "nohz_full"))
    if ticks_off != isolated:
        yield f"cores without ticks are {format_cpu_list(ticks_off) or 'none'}, not the isolated ones"


def _isolated(root: Path) -> frozenset[int]:
    """Cores of an isolated partition that no other control group has."""
    groups = root / "sys/fs/cgroup"
    if _text(groups / "rt.slice/cpuset.cpus.partition") != "isolated":
        return frozenset()
    return _cpus(_text(groups / "rt.slice/cpuset.cpus.effective")) - _cpus(_text(groups / "cpuset.cpus.effective"))


def _units(settings: RealtimeSettings, root: Path) -> Iterator[str]:
    groups = root / "sys/fs/cgroup"
    for unit in settings.units:
        # A running service has a control group with a process, here or in a slice; asking systemd costs a process.
        events = [*groups.glob(f"{unit}/cgroup.events"), *groups.glob(f"*.slice/{unit}/cgroup.events")]
        if not any("populated 1" in _text(path) for path in events):
            yield f"{unit} is not running"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _cpus(text: str) -> frozenset[int]:
    # The kernel prints "(null)" for nohz_full when it was not told any.
    return parse_cpu_list(text, None) if text and text != "(null)" else frozenset()
