"""Shell scripts of `rtinfra stack` and what their output means. POSIX sh; one script is one round trip."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal

from rtinfra.facts import http, output_sections
from rtinfra.facts.http import Request
from rtinfra.quadlet import DATA_ROOT
from rtinfra.stack_programs import Program
from rtinfra.terminal import plain

Verb = Literal["start", "stop", "restart"]

#: Lines of a unit's journal that are shown when it does not start.
JOURNAL_LINES: Final = 30
_PROPERTIES: Final = "Id,ActiveState,SubState,ActiveEnterTimestamp,MemoryCurrent,NRestarts"
_PROGRAM_PATH: Final = "sed -n 's/.*{ path=\\([^ ;]*\\).*/\\1/p'"


@dataclass(frozen=True)
class ProgramStatus:
    """One program on one host, as `ps` shows it. `ready` is None where there is nothing to ask."""

    host: str
    program: str
    image: str
    state: str
    since: str
    memory_mb: float | None
    restarts: int
    ready: bool | None

    @property
    def ok(self) -> bool:
        """Whether it runs and, where it can be asked, answers."""
        return self.state.startswith("active") and self.ready is not False


def status_script(programs: Sequence[Program]) -> str:
    """Return a script that looks at programs of one host."""
    units = " ".join(shlex.quote(program.unit) for program in programs)
    versions = "\n".join(
        # The package that the unit's program belongs to.
        f"path=$(systemctl show -P ExecStart {shlex.quote(program.unit)} | {_PROGRAM_PATH})\n"
        f'package=$(dpkg -S "$path" | cut -d: -f1)\n'
        f'[ -n "$package" ] && echo {shlex.quote(program.name)} '
        "$(dpkg-query -W -f '${Package} ${Version}' \"$package\")"
        for program in programs
        if program.container is None
    )
    return output_sections.script(
        {
            "units": f"systemctl show --no-pager -p {_PROPERTIES} -- {units}",
            "containers": "podman ps --all --no-trunc --format '{{.Names}} {{.Image}}'",
            "labels": (
                "podman ps --all --no-trunc --format '{{.Names}}' | xargs -r podman inspect --format "
                "'{{.Name}} {{index .Config.Labels \"org.opencontainers.image.version\"}}'"
            ),
            "packages": versions or "true",
            "ready": http.command(Request(program.ready) for program in programs if program.ready),
            "end": "echo reached",
        }
    )


def parse_status(text: str, programs: Sequence[Program]) -> list[ProgramStatus]:
    """Return the state of each program from the output of `status_script`."""
    found = output_sections.parse(text.split("\n"))
    units = {block["Id"]: block for block in output_sections.blocks(found.get("units", [])) if "Id" in block}
    images = dict(output_sections.pairs(found.get("containers", [])))
    labels = dict(output_sections.pairs(found.get("labels", [])))
    packages = dict(output_sections.pairs(found.get("packages", [])))
    answers = {answer.url: answer.status for answer in http.parse(found.get("ready", []))}
    return [
        ProgramStatus(
            host=program.host,
            program=program.name,
            image=_version(program, images, labels, packages),
            state=_state(units.get(program.unit, {})),
            since=units.get(program.unit, {}).get("ActiveEnterTimestamp", ""),
            memory_mb=_megabytes(units.get(program.unit, {}).get("MemoryCurrent", "")),
            restarts=int(units.get(program.unit, {}).get("NRestarts") or 0),
            ready=answers.get(program.ready, 0) in program.ready_status if program.ready else None,
        )
        for program in programs
    ]


def _version(
    program: Program, images: Mapping[str, str], labels: Mapping[str, str], packages: Mapping[str, str]
) -> str:
    if program.container is None:
        package, _, version = packages.get(program.name, "").partition(" ")
        # What only runs on an interpreter would be called by the interpreter's name.
        return f"{package} {version}" if package in program.packages else ""
    # A digest is for machines; its first digits are enough to tell two apart.
    repository, _, digest = images.get(program.name, "").partition("@sha256:")
    label = labels.get(program.name, "").replace("<no value>", "")
    return " ".join(filter(None, [repository.rpartition("/")[2], label, digest[:12]]))


def _state(properties: Mapping[str, str]) -> str:
    active, sub = properties.get("ActiveState", "unknown"), properties.get("SubState", "")
    return active if sub in ("", "running", "dead", active) else f"{active} ({sub})"


def _megabytes(text: str) -> float | None:
    return round(int(text) / 2**20, 1) if text.isdecimal() and int(text) < 2**63 else None


# --- start, stop, restart


@dataclass(frozen=True)
class Outcome:
    """What became of one program. `journal` is the end of its journal when it did not work."""

    host: str
    program: str
    ok: bool
    journal: tuple[str, ...] = ()


def action_script(verb: Verb, programs: Sequence[Program]) -> str:
    """Return a script that starts, stops or restarts units one after the other, in the given order."""
    units = " ".join(shlex.quote(program.unit) for program in programs)
    # A unit that gave up is allowed to try again. The start of a container ends once it answers. Lines of journals are
    # moved in: they are the program's words, and `ok` alone is ours.
    forgive = "" if verb == "stop" else "systemctl reset-failed $unit 2>/dev/null\n    "
    return f"""for unit in {units}; do
    echo; echo {output_sections.MARKER}$unit
    {forgive}if systemctl {verb} $unit; then echo ok; else
        echo failed
        journalctl --no-pager -q -o cat -n {JOURNAL_LINES} -u $unit | sed 's/^/ /'
    fi
done 2>&1"""


def parse_action(text: str, programs: Sequence[Program]) -> list[Outcome]:
    """Return what became of each program from the output of `action_script`."""
    found = output_sections.parse(text.split("\n"))
    outcomes = []
    for program in programs:
        lines = [plain(line) for line in found.get(program.unit, []) if line.strip()]
        ok = "ok" in lines[-1:]
        outcomes.append(
            Outcome(program.host, program.name, ok, () if ok else tuple(line.removeprefix(" ") for line in lines))
        )
    return outcomes


# --- reset


@dataclass(frozen=True)
class Data:
    """A directory with data of a program, and how much is in it; None when it is not there."""

    host: str
    program: str
    directory: str
    size_mb: float | None


def sizes_script(programs: Sequence[Program]) -> str:
    """Return a script that tells how large the programs' data directories are."""
    directories = " ".join(shlex.quote(path) for program in programs for path in program.directories)
    return f"LC_ALL=C du -sxk -- {directories} 2>/dev/null"


def parse_sizes(text: str, programs: Sequence[Program]) -> list[Data]:
    """Return the directories with their sizes from the output of `sizes_script`."""
    sizes = {path: int(size) for size, path in (line.split("\t", 1) for line in text.splitlines() if "\t" in line)}
    return [
        Data(program.host, program.name, path, round(sizes[path] / 1024, 1) if path in sizes else None)
        for program in programs
        for path in program.directories
    ]


def reset_script(programs: Sequence[Program]) -> str:
    """Return a script that stops programs, empties their data directories and starts them again.

    The directories themselves stay, with owner and mode, and so do those in them that a deploy makes.

    Raises:
        ValueError: a directory is not inside the root of all data.
    """
    for path in (path for program in programs for path in (*program.directories, *program.kept)):
        if not re.fullmatch(rf"{re.escape(DATA_ROOT)}(/[A-Za-z0-9][A-Za-z0-9._-]*)+", path):
            raise ValueError(f"{path} is not a directory below {DATA_ROOT}")
    stops = "\n".join(f"systemctl stop {shlex.quote(program.unit)} || exit 1" for program in reversed(programs))
    # -xdev: what is mounted inside is not ours. A symbolic link is not followed.
    deletes = "\n".join(
        f"find {shlex.quote(path)} -xdev -mindepth 1 {_except(program.kept)}-delete || exit 1"
        for program in programs
        for path in program.directories
    )
    units = " ".join(shlex.quote(program.unit) for program in programs)
    return f"""said=$(
exec 2>&1
{stops}
{deletes}
) || {{
    for unit in {units}; do echo; echo {output_sections.MARKER}$unit; printf '%s\\n' "$said"; done
    exit 1
}}
{action_script("start", programs)}"""


def _except(kept: Sequence[str]) -> str:
    """Return the tests of find(1) that spare directories that a deploy makes, with those they are in."""
    paths = {str(path) for name in kept for path in (PurePosixPath(name), *PurePosixPath(name).parents)}
    return "".join(f"! -path {shlex.quote(path)} " for path in sorted(paths) if path.startswith(f"{DATA_ROOT}/"))
