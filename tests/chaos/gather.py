"""Runs on a host and prints, as JSON, everything that a deploy may leave behind: section -> name -> value.

The end states of two hosts are compared with it (state.py), so a value holds nothing that differs between two hosts
that came to be the same way: no times, no numbers of processes, nothing random.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import re
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

# /usr and the database of dpkg too: a file that lost its content in the power cut shows nowhere else.
TREES = (
    "/boot",
    "/etc",
    "/home",
    "/opt",
    "/root",
    "/usr",
    "/var/lib/dpkg",
    "/var/lib/rtinfra",
    "/var/lib/systemd",
    "/var/mxrc",
    "/var/spool/cron",
)

# Each legitimately differs between two hosts that came to be the same way; why, is said beside it.
LEFT_OUT = (
    # A host's own identity.
    r"/etc/machine-id|/etc/ssh/ssh_host_.*|/var/lib/systemd/(random-seed|credential\.secret)",
    # When something happened.
    r"/var/lib/rtinfra/drift/result\.json|/boot/rtinfra/(state|evidence)|/var/lib/systemd/(timers|timesync)/.*",
    # A measurement.
    r"/var/lib/rtinfra/latency-before\.json",
    # The running application writes them as long as it runs.
    r"/var/mxrc/checkpoints/.*",
    # The value before the last: how often a file was written, not what it says.
    r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-|/var/lib/dpkg/(status|diversions|statoverride|available)-old",
    # Locks.
    r"/etc/\.pwd\.lock|/var/lib/dpkg/(lock|lock-frontend|triggers/Lock)",
    # Compared as `packages`, line by line.
    r"/var/lib/dpkg/(status|available)",
    # Python's and ldconfig's caches hold times.
    r".*/__pycache__(/.*)?|/var/cache/.*",
    # Compared as `initrd`, by its content: its bytes hold times.
    r"/boot/.*initrd.*",
    # Compared as `boot`: they name other files by hashes over an initrd's bytes.
    r"/boot/grub/(grub\.cfg|rtinfra\.cfg|grubenv)",
)
_LEFT_OUT = re.compile("|".join(f"(?:{pattern})" for pattern in LEFT_OUT))
# Names under which programs write a file before it gets its own name, or put the old one aside.
UNFINISHED = re.compile(
    r".*(\.rtinfra-new(\.[^/]*)?|\.dpkg-(new|tmp|old|dist)|\.ucf-(new|dist)|\.new|\.bak|~)|.*/stage\.[^/]+(/.*)?"
)
# Day of the last change of a password, the third field.
_SHADOW_DAY = re.compile(rb"^([^:]*:[^:]*):\d*:", re.MULTILINE)


def run(*command: str) -> list[str]:
    """The lines a program prints, whatever its exit code."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


def read(path: str | Path) -> str:
    """A file's text without line end; empty when it cannot be read."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def packages() -> dict[str, str]:
    """Version, status, and whether installed for its own sake or for another's."""
    form = "${binary:Package}\t${Version} ${db:Status-Want} ${db:Status-Status}\n"
    found = dict(line.split("\t") for line in run("dpkg-query", "-W", "-f", form))
    (architecture,) = run("dpkg", "--print-architecture")
    for mark in ("auto", "hold"):
        for name in run("apt-mark", f"show{mark}"):
            # dpkg names the architecture of those that may be there for several.
            full = name if name in found else f"{name}:{architecture}"
            found[full] = f"{found.get(full, 'unknown')} {mark}"
    return found


def walk(top: str) -> Iterator[str]:
    """All paths of a tree on its own file system, itself included."""
    if not os.path.lexists(top):
        return
    yield top
    directories = [] if Path(top).is_symlink() else [top]
    while directories:
        with os.scandir(directories.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if os.path.ismount(entry.path):
                        continue
                    directories.append(entry.path)
                yield entry.path


# The system's own look-up reads /etc/passwd anew every time.
@cache
def name_of(look_up: Callable[[int], Sequence[str]], number: int) -> str:
    """Name of a user or group, or the number where there is none."""
    try:
        return look_up(number)[0]
    except KeyError:
        return str(number)


def described(path: str) -> str:
    """Kind, mode, owner, and content or target."""
    status = os.lstat(path)
    owner, group = name_of(pwd.getpwuid, status.st_uid), name_of(grp.getgrgid, status.st_gid)
    common = f"{stat.S_IMODE(status.st_mode):04o} {owner}:{group}"
    if stat.S_ISLNK(status.st_mode):
        return f"link to {Path(path).readlink()}"
    if stat.S_ISDIR(status.st_mode):
        return f"directory {common}"
    if stat.S_ISREG(status.st_mode):
        content = Path(path).read_bytes()
        if path in ("/etc/shadow", "/etc/gshadow"):
            content = _SHADOW_DAY.sub(rb"\1::", content)
        # Against damage, not against malice; without instructions for SHA it is eight times as fast.
        return f"file {common} {len(content)} bytes {hashlib.md5(content, usedforsecurity=False).hexdigest()}"
    return f"special {stat.S_IFMT(status.st_mode):o} {common}"


def files() -> dict[str, str]:
    """Every path below TREES but those left out."""
    return {path: described(path) for top in TREES for path in walk(top) if not _LEFT_OUT.fullmatch(path)}


def units() -> dict[str, str]:
    """Whether units start at boot, which run, which failed."""
    found = {}
    for line in run("systemctl", "list-unit-files", "--no-legend", "--plain"):
        name, enabled, *_ = line.split()
        # Logins, and what somebody started by hand.
        if enabled != "transient":
            found[name] = enabled
    # Started on demand and ended by themselves; and what exists for each login.
    passing = re.compile(r"user@|user-|session-|run-|dev-|sys-|systemd-(hostnamed|timedated|localed|tmpfiles-clean)\.")
    # One has work when the boot was a trial, the other one when it was not.
    of_a_boot = ("rtinfra-boot-judge.service", "rtinfra-boot-settle.service")
    for line in run("systemctl", "list-units", "--all", "--no-legend", "--plain"):
        name, _, active, _, *_ = line.split()
        if name in of_a_boot and active == "active":
            continue
        if active in ("active", "failed") and not passing.match(name):
            found[name] = f"{found.get(name, 'made at run time')} {active}"
    return found


def boot() -> dict[str, str]:
    """What is booted, and what GRUB offers."""
    # What was promoted starts by itself the next time: the same kernel and words by the other one of two names.
    command_line = re.sub(r"\brtinfra\.(trial|good)=", "rtinfra.entry=", read("/proc/cmdline"))
    found = {"kernel": read("/proc/sys/kernel/osrelease"), "command line": command_line}
    for name in ("grub.cfg", "rtinfra.cfg"):
        title = ""
        for line in read(f"/boot/grub/{name}").splitlines():
            words = line.split()
            if words[:1] in (["menuentry"], ["submenu"]):
                title = line.split("'")[1] if "'" in line else line.strip()
            elif words[:1] in (["linux"], ["initrd"]):
                found[f"{name}: {title}: {words[0]}"] = " ".join(words[1:])
        found[f"{name}: text"] = read(f"/boot/grub/{name}")
    for line in read("/boot/grub/grubenv").splitlines():
        if "=" in line:
            name, _, value = line.partition("=")
            found[f"grubenv: {name}"] = value
    # What became of the last trial; when, and in which boot, is left out.
    for line in read("/boot/rtinfra/state").splitlines():
        if line.startswith(("status=", "release=")):
            name, _, value = line.partition("=")
            found[f"trial: {name}"] = value
    return found


def initrd() -> dict[str, str]:
    """What is in every initrd, by name."""
    return {
        str(path): " ".join(sorted(run("lsinitramfs", str(path))))
        for path in sorted(Path("/boot").rglob("*initrd*"))
        if path.is_file() and not path.is_symlink()
    }


def live() -> dict[str, str]:
    """Values of the running kernel that our files and programs set."""
    found = {}
    for directory in ("/usr/lib/sysctl.d", "/etc/sysctl.d"):
        for path in sorted(Path(directory).glob("*.conf")):
            for key in re.findall(r"^-?([a-z][\w./-]*)\s*=", read(path), re.MULTILINE):
                found[f"sysctl {key}"] = " ".join(read("/proc/sys/" + key.replace(".", "/")).split())
    for path in sorted(Path("/proc/irq").glob("[0-9]*")):
        # By the name of what it serves: numbers are given out anew at every boot.
        for action in sorted(entry.name for entry in path.iterdir() if entry.is_dir()):
            found[f"interrupt {action}"] = read(path / "smp_affinity_list")
    cpu = "/sys/devices/system/cpu"
    for name in (
        "/proc/irq/default_smp_affinity",
        "/sys/fs/cgroup/cpuset.cpus.isolated",
        f"{cpu}/nohz_full",
        f"{cpu}/online",
        "/sys/devices/virtual/workqueue/cpumask",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/kernel/realtime",
        *sorted(map(str, Path("/sys/fs/cgroup").glob("*.slice/cpuset.cpus*"))),
    ):
        found[name] = read(name)
    return found


def unfinished() -> dict[str, str]:
    """What interrupted work leaves behind."""
    places = [path for top in ("/boot", "/etc", "/usr/local", "/var/lib/rtinfra", "/var/mxrc") for path in walk(top)]
    places = [path for path in places if UNFINISHED.fullmatch(path)]
    for directory in (
        "/run/rtinfra/pending",
        "/var/lib/rtinfra/pending",
        "/var/lib/dpkg/updates",
        "/var/lib/dpkg/tmp.ci",
        "/var/lib/apt/lists/partial",
        "/var/cache/apt/archives/partial",
    ):
        places += [path for path in walk(directory) if path != directory]
    found = dict.fromkeys(places, "there")
    found.update((line, "reported by dpkg --audit") for line in run("dpkg", "--audit"))
    return found


if __name__ == "__main__":
    sections = (packages, files, units, boot, initrd, live, unfinished)
    print(json.dumps({section.__name__: section() for section in sections}))
