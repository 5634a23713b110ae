#!/usr/bin/python3
"""Looks whether this host still is what the last deploy made of it, and names everything that is not.

Installed by rtinfra, role drift. Needs nothing but Python's standard library and no other computer: what is expected
stands in expected.json, written by the deploy from the same values that it handed to its operations.

    drift.py           look at everything; one line for each drift, result.json, metrics for node_exporter
    drift.py --live    look only at values of the running kernel that a deploy can put back, for the deploy:
                       name of the action that does it, tab, the drift in words

Ends with 0: as it should be, 1: drift found, 2: could not look.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import grp
import hashlib
import json
import os
import pwd
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

EXIT_FINE, EXIT_DRIFT, EXIT_UNUSABLE = 0, 1, 2

STATE = "/var/lib/rtinfra/drift"
METRICS = "rtinfra_drift.prom"
FORMAT = 1

_BLOCK = 1 << 20
_SECONDS = 120
_UNIT_PROPERTIES = "LoadState,ActiveState,UnitFileState,NeedDaemonReload"
# Numbers of fields in proc_pid_stat(5), counted from the third: the name before may hold blanks.
_PRIORITY, _POLICY = 40 - 3, 41 - 3
_SCHED_FIFO = 1


@dataclass(frozen=True)
class Drift:
    """One thing that is not as it should be. `action` names what a deploy runs to put a live value back."""

    kind: str
    name: str
    expected: str
    actual: str
    action: str = field(default="", repr=False)

    def __str__(self) -> str:
        text = f"{self.kind} {self.name}: expected {self.expected}, found {self.actual}"
        # Names of threads are others' words: a line break would begin a line of theirs in what a deploy reads.
        return "".join(letter if letter.isprintable() else "?" for letter in text)


class Unusable(Exception):
    """Nothing can be checked; the text says why."""


# ---- files


def files(expected: Sequence[dict[str, Any]], root: Path) -> Iterator[Drift]:
    """Yield what differs of managed files and directories, attribute by attribute."""
    for entry in expected:
        path, kind = entry["path"], entry["kind"]
        try:
            found = (root / path.lstrip("/")).lstat()
        except (FileNotFoundError, NotADirectoryError):
            if kind != "absent":
                yield Drift(kind, path, "there", "absent")
            continue
        actual = _kind_of(found.st_mode)
        if kind == "absent":
            yield Drift("file", path, "absent", f"a {actual}")
        elif actual != kind:
            yield Drift(kind, path, f"a {kind}", f"a {actual}")
        else:
            yield from _attributes(entry, found, root)


def _attributes(entry: dict[str, Any], found: os.stat_result, root: Path) -> Iterator[Drift]:
    path, kind = entry["path"], entry["kind"]
    # Never a hash in what is told: of a short secret it could be tried out.
    if kind == "file" and _sha256(root / path.lstrip("/")) != entry["sha256"]:
        yield Drift(kind, path, "the content that was deployed", "another content")
    for what, wanted, actual in (
        ("mode", entry["mode"], f"{stat.S_IMODE(found.st_mode):04o}"),
        ("owner", entry["owner"], _name(lambda: pwd.getpwuid(found.st_uid).pw_name)),
        ("group", entry["group"], _name(lambda: grp.getgrgid(found.st_gid).gr_name)),
    ):
        if actual != wanted:
            yield Drift(kind, path, f"{what} {wanted}", f"{what} {actual}")


def _kind_of(mode: int) -> str:
    for test, name in ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "symbolic link")):
        if test(mode):
            return name
    return "special file"


def _name(look: Callable[[], str]) -> str:
    try:
        return look()
    except KeyError:
        return "UNKNOWN"  # as stat(1) says


def _sha256(path: Path) -> str:
    """Return the hash of a file's content; nothing when it is none any more."""
    digest = hashlib.sha256()
    try:
        # What is a file in this moment may be a link or a pipe in the next, where another account can write.
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            return ""
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


# ---- units and packages


def units(expected: Sequence[dict[str, Any]]) -> Iterator[Drift]:
    """Yield units that the deploy would touch. One that is just starting is as good as one that runs."""
    names = [entry["name"] for entry in expected]
    if not names:
        return
    blocks: list[dict[str, str]] = [{}]
    for line in _output("systemctl", "show", "--no-pager", "-p", _UNIT_PROPERTIES, "--", *names).splitlines():
        if line.strip():
            key, _, value = line.partition("=")
            blocks[-1][key] = value
        else:
            blocks.append({})
    blocks = [block for block in blocks if block]
    if len(blocks) != len(names):
        raise Unusable(f"systemctl told about {len(blocks)} of {len(names)} units")
    # By position: an alias answers with another unit's name.
    for entry, block in zip(expected, blocks, strict=True):
        yield from _unit(entry, block)


def _unit(entry: dict[str, Any], state: dict[str, str]) -> Iterator[Drift]:
    name, startup, running = entry["name"], entry["startup"], entry["running"]
    load, active, file = (state.get(key, "") for key in ("LoadState", "ActiveState", "UnitFileState"))
    if startup == "masked":
        if file != "masked":
            yield Drift("unit", name, "masked", file or load)
        return
    if "masked" in (file, load):
        yield Drift("unit", name, "not masked", "masked")
    if startup == "enabled" and file not in ("enabled", "static"):
        yield Drift("unit", name, "enabled", file or load)
    if startup == "disabled" and file not in ("disabled", "static", ""):
        yield Drift("unit", name, "disabled", file)
    if running is False and active not in ("inactive", "failed"):
        yield Drift("unit", name, "stopped", active)
    if running and active not in ("active", "activating", "reloading"):
        yield Drift("unit", name, "active", active)
    if state.get("NeedDaemonReload") == "yes":
        yield Drift("unit", name, "its file as systemd has read it", "changed since")


def packages(expected: dict[str, str | None]) -> Iterator[Drift]:
    """Yield packages that are not installed, or not in the one version that was."""
    if not expected:
        return
    # Packages that dpkg does not know are an error to it, and an answer to us.
    form = "${Package}\t${Version}\t${db:Status-Abbrev}\n"
    listed = _output("dpkg-query", "-W", "-f", form, "--", *expected, statuses=(0, 1))
    installed = {}
    for line in listed.splitlines():
        name, version, status = line.split("\t")
        if status.startswith(("ii", "hi")):
            installed[name] = version
    for name, wanted in expected.items():
        if name not in installed:
            yield Drift("package", name, "installed", "not installed")
        elif wanted is not None and installed[name] != wanted:
            yield Drift("package", name, wanted, installed[name])


def _output(*command: str, statuses: Sequence[int] = (0,)) -> str:
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unusable(f"{command[0]}: {error}") from error
    if ended.returncode not in statuses:
        raise Unusable(f"{command[0]}: {ended.stderr.decode(errors='replace').strip()[-300:]}")
    return ended.stdout.decode(errors="replace")


# ---- the running kernel


def kernel(expected: dict[str, Any] | None, root: Path) -> Iterator[Drift]:
    """Yield what differs of the booted kernel and its command line; only words whose names are ours count."""
    if expected is None:
        return
    release = os.uname().release
    if not fnmatch.fnmatchcase(release, expected["release"]):
        yield Drift("kernel", "release", expected["release"], release)
    wanted, booted = _by_name(expected["words"]), _by_name(_read(root / "proc/cmdline").split())
    for name, words in wanted.items():
        if set(booted.get(name, ())) != set(words):
            yield Drift("kernel command line", name, " ".join(words), " ".join(booted.get(name, ())) or "absent")


def _by_name(words: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        found.setdefault(word.partition("=")[0], []).append(word)
    return found


def live(expected: Sequence[dict[str, Any]], root: Path) -> Iterator[Drift]:
    """Yield values that only exist while the kernel runs and are not what they were set to.

    What a kernel does not have is no drift: it has no effect either.
    """
    for entry in expected:
        find = _threads if entry["form"] == "fifo" else _values
        for name, actual in find(entry, root):
            yield Drift(entry["kind"], name, entry["value"], actual, entry["action"])


def _values(entry: dict[str, Any], root: Path) -> Iterator[tuple[str, str]]:
    """Yield name and value of each file that has another value than the wanted one."""
    form, wanted = entry["form"], entry["value"]
    for path in sorted(root.glob(entry["paths"].lstrip("/"))):
        try:
            text = _read(path)
        except OSError:
            continue  # gone meanwhile, or nothing to be read for us
        if not _FORMS[form](text, wanted, path, root):
            yield entry["name"] or _shown(path, root), _told(form, text, wanted, path)


def _told(form: str, text: str, wanted: str, path: Path) -> str:
    if form == "interrupt" and _cpus(text) <= _cpus(wanted):
        return f"{text}, but delivered to {','.join(map(str, sorted(_delivered(path))))}"
    return text


def _threads(entry: dict[str, Any], root: Path) -> Iterator[tuple[str, str]]:
    """Yield kernel threads whose name fits and that have another SCHED_FIFO priority."""
    for path in sorted(root.glob("proc/[0-9]*/stat")):
        try:
            head, _, tail = _read(path).rpartition(") ")
        except OSError:
            continue
        name, fields = head.partition("(")[2], tail.split()
        if fnmatch.fnmatchcase(name, entry["paths"]):
            policy, priority = int(fields[_POLICY]), int(fields[_PRIORITY])
            if (policy, priority) != (_SCHED_FIFO, int(entry["value"])):
                yield name, f"policy {policy}, priority {priority}"


def _same_text(text: str, wanted: str, _path: Path, _root: Path) -> bool:
    return text.split() == wanted.split()


def _same_choice(text: str, wanted: str, _path: Path, _root: Path) -> bool:
    return text.partition("[")[2].partition("]")[0] == wanted


def _same_cpus(text: str, wanted: str, _path: Path, _root: Path) -> bool:
    return _cpus(text) == _cpus(wanted)


def _same_mask(text: str, wanted: str, _path: Path, _root: Path) -> bool:
    return _mask(text) == _mask(wanted)


def _work_stays(text: str, wanted: str, _path: Path, root: Path) -> bool:
    """Tell whether a workqueue keeps to the wanted CPUs.

    Its own mask is applied within the common one, and one made late shows all CPUs: wqattrs_actualize_cpumask() of the
    kernel's workqueue.c.
    """
    common = _mask(_read(root / "sys/devices/virtual/workqueue/cpumask"))
    return not (_mask(text) & common or common) & ~_mask(wanted)


def _interrupt_stays(text: str, wanted: str, path: Path, _root: Path) -> bool:
    """Tell whether an interrupt keeps to the wanted CPUs, or is none that anybody could move.

    Where it may go and where it goes are two files: some cards deliver elsewhere than they were told.
    """
    if _cpus(text) | _delivered(path) <= _cpus(wanted):
        return True
    # The kernel refuses even the value it has where it places an interrupt alone. Nothing is changed by asking.
    try:
        number = os.open(path, os.O_WRONLY)
        try:
            os.write(number, text.encode())
        finally:
            os.close(number)
    except OSError:
        return True
    return False


def _delivered(path: Path) -> frozenset[int]:
    try:
        return _cpus(_read(path.with_name("effective_affinity_list")))
    except OSError:
        return frozenset()


_FORMS: dict[str, Callable[[str, str, Path, Path], bool]] = {
    "text": _same_text,
    "choice": _same_choice,
    "cpus": _same_cpus,
    "mask": _same_mask,
    "workqueue": _work_stays,
    "interrupt": _interrupt_stays,
}


def _cpus(text: str) -> frozenset[int]:
    """Read a CPU list such as `0-1,4`; `(null)` and nothing are the empty one."""
    found: set[int] = set()
    for part in re.findall(r"\d+(?:-\d+)?", text):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _mask(text: str) -> int:
    return int(text.replace(",", "") or "0", 16)


def _read(path: Path) -> str:
    # Kernel files have no size: read until the end.
    return path.read_text(encoding="utf-8", errors="replace").strip()


def _shown(path: Path, root: Path) -> str:
    return f"/{path.relative_to(root)}"


# ---- all of it


def look(expected: dict[str, Any], root: Path) -> list[Drift]:
    """Return everything that is not as expected."""
    return [
        *files(expected["files"], root),
        *units(expected["units"]),
        *packages(expected["packages"]),
        *kernel(expected["kernel"], root),
        *live(expected["live"], root),
    ]


def metrics(found: Sequence[Drift], kinds: Sequence[str], finished: float, seconds: float) -> str:
    """Return the result in Prometheus's text format."""
    lines = ["# HELP rtinfra_drift_items Things that are not what the last deploy made them.", _type("items")]
    for kind in sorted({*kinds, *(drift.kind for drift in found)}):
        lines.append(f'rtinfra_drift_items{{kind="{kind}"}} {sum(drift.kind == kind for drift in found)}')
    lines += ["# HELP rtinfra_drift_found 1 for each such thing.", _type("found")]
    # One thing may differ in several ways.
    for kind, name in dict.fromkeys((drift.kind, drift.name) for drift in found):
        lines.append(f'rtinfra_drift_found{{kind="{kind}",name="{_escaped(name)}"}} 1')
    lines += ["# HELP rtinfra_drift_last_run_timestamp_seconds When the host looked last."]
    lines.append(_type("last_run_timestamp_seconds"))
    lines.append(f"rtinfra_drift_last_run_timestamp_seconds {finished:.0f}")
    lines += ["# HELP rtinfra_drift_duration_seconds How long that took.", _type("duration_seconds")]
    lines.append(f"rtinfra_drift_duration_seconds {seconds:.3f}")
    return "\n".join([*lines, ""])


def _type(name: str) -> str:
    return f"# TYPE rtinfra_drift_{name} gauge"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def kinds_of(expected: dict[str, Any]) -> list[str]:
    """Return the kinds of things that are looked at, so that 0 can be told for each."""
    kernel_kinds = ["kernel", "kernel command line"] if expected["kernel"] else []
    kinds = [entry["kind"] for entry in expected["live"]]
    return ["file", "directory", "unit", "package", *kernel_kinds, *kinds]


def replace(path: Path, text: str, mode: int) -> None:
    """Replace a file in one step that survives a power cut."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        # Another account can write to the folder of metrics: what it lays there in our way is made anew, never opened.
        temporary = f".{path.name}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
        with os.fdopen(number, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(folder)


def mark(marker: Path, has_drifted: bool) -> None:
    """Leave a marker with which the next deploy lets this host look again soon, when everything is put back."""
    if has_drifted:
        marker.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        marker.touch()
    else:
        marker.unlink(missing_ok=True)


def load(path: Path) -> tuple[dict[str, Any], str]:
    """Return what is expected, and the hash of the file that says so.

    Raises:
        Unusable: it cannot be read or is of another format.
    """
    try:
        content = path.read_bytes()
        expected = json.loads(content)
    except (OSError, ValueError) as error:
        raise Unusable(f"{path}: {error}") from error
    if not isinstance(expected, dict) or expected.get("format") != FORMAT:
        raise Unusable(f"{path} is of another format; run the deploy again")
    return expected, hashlib.sha256(content).hexdigest()


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Look whether this host still is what the last deploy made of it.")
    parser.add_argument("--live", action="store_true", help="only what a deploy can put back in the running kernel")
    parser.add_argument("--directory", type=Path, default=Path(STATE), help="where expected.json is, and result.json")
    parser.add_argument("--textfiles", type=Path, help="folder of node_exporter's textfile collector")
    parser.add_argument("--marker", type=Path, help="file that is there exactly while there is drift")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the host's files are")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        expected, digest = load(options.directory / "expected.json")
        if options.live:
            mendable = [drift for drift in live(expected["live"], options.root) if drift.action]
            print("".join(f"{drift.action}\t{drift}\n" for drift in mendable), end="")
            return EXIT_DRIFT if mendable else EXIT_FINE
        found = look(expected, options.root)
    except Unusable as error:
        print(f"cannot look: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    finished, seconds = time.time(), time.monotonic() - started
    for drift in found:
        print(drift)
    print(f"{len(found)} things are not as they were deployed" if found else "everything is as it was deployed")
    result = {
        "format": FORMAT,
        "host": expected["host"],
        "settings_sha256": expected["settings_sha256"],
        "expected_sha256": digest,
        "finished": round(finished),
        "seconds": round(seconds, 3),
        "boot_id": _read(Path("/proc/sys/kernel/random/boot_id")),
        "kernel": os.uname().release,
        "drift": [{key: value for key, value in asdict(drift).items() if key != "action"} for drift in found],
    }
    replace(options.directory / "result.json", json.dumps(result, indent=1) + "\n", 0o600)
    if options.marker is not None:
        mark(options.marker, bool(found))
    if options.textfiles is not None and options.textfiles.is_dir():
        replace(options.textfiles / METRICS, metrics(found, kinds_of(expected), finished, seconds), 0o644)
    return EXIT_DRIFT if found else EXIT_FINE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
