"""Every shell script of the project, held against shellcheck: `python -m tests.shell_scripts`.

Those of the tree, those that roles render for hosts, what is run and asked there, the lines of the workflow. Which
rules do not hold here, and why, is in `.shellcheckrc` or beside the line.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import yaml

from roles.composition import compose
from roles.fleet import load_hosts
from roles.host import HostConfig
from roles.stand_ins import stand_in_view
from rtinfra import sudo
from rtinfra.config import Fleet
from rtinfra.facts import http
from rtinfra.facts.boot import Boot
from rtinfra.facts.contents import Contents
from rtinfra.facts.environments import Environment
from rtinfra.facts.files import Files
from rtinfra.facts.host import Host
from rtinfra.facts.http import Request
from rtinfra.facts.images import Images
from rtinfra.facts.mirror import LiveMirror
from rtinfra.facts.packages import Packages, Simulation
from rtinfra.facts.units import Units
from rtinfra.lab.firmware import Firmware
from rtinfra.lab.guest import FileSystems, Guest
from rtinfra.local import programs
from rtinfra.local.archive import Archive
from rtinfra.local.errors import LocalError
from rtinfra.local.programs import Tool
from rtinfra.local.progress import ConsoleReporter
from rtinfra.mirror.installer import checking_lines
from rtinfra.operations.resources import File, Resource
from rtinfra.paths import PROJECT
from rtinfra.stack import scripts, surroundings
from rtinfra.stack_programs import programs_of
from rtinfra.verify import snapshot
from rtinfra.verify.questions import questions_of

_FIRST_LINE: Final = re.compile(r"#!\s*\S*/(?:env\s+)?(sh|bash|dash)\b")
_COMMAND: Final = re.compile(r"^(?:Exec|HealthCmd)\w*=[-+!:@]*(.*)$", re.MULTILINE)
# Answers are taken apart by the shell (2046), not every look uses all variables (2034), file names are the kernel's
# (2012), what a program complains of is wanted without what it prints (2069), and each question has a shell of its own
# (2030, 2031).
_MEANT_WHEN_ASKING: Final = "SC2012,SC2030,SC2031,SC2034,SC2046,SC2069"
# Fleets in which, together, every role is on a host, with the settings as shipped but for these of `telemetry`.
_FLEETS: Final[tuple[tuple[Mapping[str, str], tuple[str, ...]], ...]] = (
    ({}, ("gateways", "jaeger", "prometheus", "alertmanager", "mirror_server")),
    (
        {"traces": "tempo", "metrics": "mimir", "logs": "elasticsearch"},
        ("gateways", "tempo", "mimir", "alloy", "alertmanager", "grafana", "elasticsearch", "kibana", "garage"),
    ),
    (
        {"traces": "tempo", "logs": "loki"},
        ("gateways", "tempo", "loki", "alloy", "prometheus", "alertmanager", "grafana", "garage"),
    ),
)
_ROBOT: Final = ("rt_hosts", "agents", "preflight")


@dataclass(frozen=True)
class Script:
    """A script: the dialect that its first line says, sh where it has none, and its text."""

    text: str

    @property
    def dialect(self) -> str:
        """`sh` or `bash`."""
        first = _FIRST_LINE.match(self.text)
        return "bash" if first and first[1] == "bash" else "sh"


def is_script(name: str, text: str) -> bool:
    """Tell whether a file is a shell script."""
    return name.endswith(".sh") or _FIRST_LINE.match(text) is not None


def of_the_tree() -> Iterator[tuple[str, Script]]:
    """Yield the scripts that are files of the project; what hosts get of templates/ is rendered before."""
    listed = programs.execute(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], timeout=60, cwd=PROJECT
    )
    for name in sorted(filter(None, listed.stdout.split("\0"))):
        path = PROJECT / name
        if name.startswith("templates/") or not path.is_file():
            continue
        with path.open("rb") as file:
            begins_so = file.read(2) == b"#!"
        if (begins_so or name.endswith(".sh")) and is_script(name, text := path.read_text(encoding="utf-8")):
            yield name, Script(text)


def of_the_workflow() -> Iterator[tuple[str, Script]]:
    """Yield the steps of the workflow that are commands."""
    for path in sorted((PROJECT / ".github" / "workflows").glob("*.y*ml")):
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
        for job, content in jobs.items():
            for number, step in enumerate(content["steps"], start=1):
                if "run" in step:
                    text = re.sub(r"\$\{\{.*?\}\}", "VALUE", step["run"])
                    yield f"{path.relative_to(PROJECT)}/{job}-{number}", Script(text)


def of_hosts() -> Iterator[tuple[str, Script]]:
    """Yield what roles bring to hosts, and what a verification asks them."""
    for number, (telemetry, station) in enumerate(_FLEETS, start=1):
        fleet = _fleet(telemetry, station)
        for name, host in fleet.hosts.items():
            for distribution in ("debian-12", "debian-13"):
                place = f"rendered/{number}/{distribution}/{name}"
                for path in compose(stand_in_view(fleet, host, distribution)).paths:
                    yield from _of_path(place, path)
            asked = snapshot.script(questions_of(fleet, host))
            yield f"rendered/{number}/{name}/verification", asking(asked)

            if running := programs_of(fleet, host):
                place = f"rendered/{number}/{name}/stack"
                yield f"{place}/status", asking(scripts.status_script(running))
                yield f"{place}/sizes", asking(scripts.sizes_script(running))
                yield f"{place}/surroundings", asking(surroundings.script(running))
                yield f"{place}/restart", Script(scripts.action_script("restart", running))
                yield f"{place}/reset", Script(scripts.reset_script(running))


def _fleet(telemetry: Mapping[str, str], station: tuple[str, ...]) -> Fleet[HostConfig]:
    robot = (*_ROBOT, *(["mirror_client"] if "mirror_server" in station else []))
    hosts = {
        name: {
            "groups": list(groups),
            "ssh": {"address": f"192.0.2.{number}"},
            "settings": {"telemetry": dict(telemetry)},
        }
        for number, (name, groups) in enumerate({"robot": robot, "station": station}.items(), start=1)
    }
    with TemporaryDirectory() as folder:
        inventory = Path(folder) / "hosts.yaml"
        inventory.write_text(yaml.safe_dump({"hosts": hosts}), encoding="utf-8")
        return load_hosts(PROJECT, inventory)


def _of_path(place: str, path: Resource) -> Iterator[tuple[str, Script]]:
    for action in path.actions:
        yield f"{place}/actions/{action.name.replace('/', '-')}", Script(action.command)
    if not isinstance(path, File):
        return
    if path.validate:
        yield f"{place}/checks{path.path}", Script(path.validate.replace("{path}", path.path))
    text = path.content.decode(errors="replace")
    if is_script(path.path, text):
        yield f"{place}{path.path}", Script(text)
    for number, script in enumerate(in_unit(text), start=1):
        yield f"{place}{path.path}-{number}", Script(script)


def in_unit(text: str) -> Iterator[str]:
    """Yield the scripts in the commands of a unit of systemd, as their shell gets them."""
    for command in _COMMAND.findall(text):
        words = shlex.split(command)
        for index, word in enumerate(words[:-2]):
            if word.rpartition("/")[2] in ("sh", "bash") and words[index + 1] in ("-c", "-ec", "-euc"):
                yield words[index + 2].replace("%%", "%").replace("$$", "$")


def of_programs() -> Iterator[tuple[str, Script]]:
    """Yield the scripts that stand in Python."""
    archive = Archive(main=("deb http://archive.invalid/debian trixie main",))
    for firmware in Firmware:
        for file in Guest("trixie", firmware, False).files(archive, FileSystems("root", "efi")):
            if isinstance(file.content, str) and is_script(file.path, file.content):
                yield f"rendered/lab/{firmware.value}/{file.path.lstrip('/')}", Script(file.content)
    for password, tried in ((False, True), (True, True), (True, False)):
        command = sudo.command(password, tried)
        yield f"rendered/sudo/{password}-{tried}", Script(command)
        words = shlex.split(command)
        yield f"rendered/sudo/{password}-{tried}-inside", Script(words[words.index("-c") + 1])
    yield "rendered/two-typed-lines", Script("\n".join(checking_lines()))


def of_facts() -> Iterator[tuple[str, Script]]:
    """Yield what a deploy asks of a host."""
    questions = {
        "boot": Boot().command("*-rt-amd64"),
        "contents": Contents().command(["/etc/a file"]),
        "environment": Environment().command("/opt/rtinfra/preflight"),
        "files": Files().command(["/etc/a file"], ["/etc/sysctl.d/*.conf"], True),
        "host": Host().command(),
        "http": http.command([Request("GET", http.loopback(9090, "/metrics"))]),
        "images": Images().command(),
        "mirror": LiveMirror().command("/srv/rtinfra-mirror"),
        "packages": Packages().command(["chrony"]),
        "simulation": Simulation().command(["chrony"]),
        "units": Units().command(["chrony.service"]),
    }
    for name, command in questions.items():
        yield f"rendered/facts/{name}", asking(str(command))


def asking(text: str) -> Script:
    """Return what is asked of a host, where words are meant to be split and every look has the same variables."""
    return Script(f"# shellcheck disable={_MEANT_WHEN_ASKING}\n{text}")


def everything() -> dict[str, Script]:
    """Return every script by name; of equal ones the first."""
    found: dict[Script, str] = {}
    for source in (of_the_tree, of_the_workflow, of_hosts, of_facts, of_programs):
        for name, script in source():
            found.setdefault(script, name)
    return {name: script for script, name in found.items()}


def complaints(found: Mapping[str, Script]) -> str:
    """Return what shellcheck says of scripts, empty when it has nothing to say.

    Raises:
        LocalError: shellcheck is missing and cannot be installed.
    """
    programs.ensure([Tool("shellcheck", "shellcheck")], ConsoleReporter())
    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / ".shellcheckrc").write_bytes((PROJECT / ".shellcheckrc").read_bytes())
        by_dialect: dict[str, list[str]] = {}
        for name, script in found.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(script.text, encoding="utf-8")
            by_dialect.setdefault(script.dialect, []).append(name)
        return "".join(_said(root, dialect, names) for dialect, names in sorted(by_dialect.items()))


def _said(root: Path, dialect: str, names: Iterable[str]) -> str:
    command = ["shellcheck", "--color=never", f"--shell={dialect}", *names]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if run.returncode not in (0, 1):
        raise LocalError(f"shellcheck failed: {run.stderr or run.stdout}", "run it by hand on the file that it names")
    return run.stdout


def main() -> int:
    """Check every script and return the exit code."""
    try:
        found = everything()
        said = complaints(found)
    except LocalError as error:
        print(error, file=sys.stderr)
        return 2
    print(said, end="")
    print(f"{len(found)} scripts")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
