"""The same desired state as ordinary Ansible playbooks, with the settings Ansible's own guides recommend for speed.

`tasks.yml` has one task for each file, directory and unit, as people write them; `loops.yml` has one looping
task of each kind, the least Ansible needs without modules of one's own. No handlers: an unchanged host calls
none. Facts are not gathered, and the interpreter is named, so nothing is spent on finding out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.record import Desired
from rtinfra.config import SshSettings
from rtinfra.operations.resources import Absent, Directory, File, Resource, Unit

#: File names of the two playbooks, by the name they have in reports.
PLAYBOOKS = {"ansible, a task per file": "tasks.yml", "ansible, loops": "loops.yml"}
INVENTORY = "hosts.yml"
CONFIG = "ansible.cfg"

_Task = dict[str, Any]
_COPY, _FILE = "ansible.builtin.copy", "ansible.builtin.file"
_APT, _SERVICE = "ansible.builtin.apt", "ansible.builtin.systemd_service"

# Pipelining: a module comes through the open connection instead of as a file. ControlPersist: one connection
# for all tasks and, within its time, for the next playbook too.
_SETTINGS = """\
[defaults]
inventory = {inventory}
gathering = explicit
retry_files_enabled = false
nocows = true

[ssh_connection]
pipelining = true
control_path_dir = {sockets}
ssh_args = -o ControlMaster=auto -o ControlPersist=60s
"""


def write(directory: Path, desired: Desired, name: str, ssh: SshSettings, sockets: Path) -> None:
    """Write configuration, inventory, both playbooks and the files they copy into `directory`.

    `sockets` is a directory for the kept connections; the path of a socket may not exceed 107 characters.
    """
    for path in desired.paths:
        if isinstance(path, File):
            source = directory / "files" / _source(path)
            source.parent.mkdir(parents=True, exist_ok=True)
            source.touch(mode=0o600)
            source.write_bytes(path.content)
    for file, tasks in (("tasks.yml", single_tasks(desired)), ("loops.yml", looped_tasks(desired))):
        _dump(directory / file, [{"hosts": "all", "gather_facts": False, "tasks": tasks}])
    _dump(directory / INVENTORY, {"all": {"hosts": {name: connection(ssh)}}})
    settings = _SETTINGS.format(inventory=INVENTORY, sockets=sockets)
    (directory / CONFIG).write_text(settings, encoding="utf-8")


def connection(ssh: SshSettings) -> dict[str, Any]:
    """Return the inventory variables that lead to a host: same key, same strict host keys as pyinfra."""
    strict = "-o StrictHostKeyChecking=yes"
    if ssh.known_hosts is not None:
        strict += f" -o UserKnownHostsFile={ssh.known_hosts.expanduser()}"
    variables: dict[str, Any] = {
        "ansible_host": ssh.address,
        "ansible_port": ssh.port,
        "ansible_user": ssh.user,
        "ansible_ssh_common_args": strict,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    if ssh.key is not None:
        variables["ansible_ssh_private_key_file"] = str(ssh.key.expanduser())
    return variables


def single_tasks(desired: Desired) -> list[_Task]:
    """Return one task for the packages and one for each path and unit."""
    tasks = [_packages(desired.packages)]
    for path in desired.paths:
        module, arguments = _path(path)
        tasks.append({"name": path.path, module: arguments})
    tasks += [{"name": unit.name, _SERVICE: _unit(unit)} for unit in desired.units]
    return tasks


def looped_tasks(desired: Desired) -> list[_Task]:
    """Return one task for each module, looping over what it manages."""
    paths = [_path(path) for path in desired.paths]
    tasks = [_packages(desired.packages)]
    tasks += _loop(_FILE, [arguments for module, arguments in paths if module == _FILE])
    tasks += _loop(_COPY, [arguments for module, arguments in paths if module == _COPY])
    tasks += _loop(_SERVICE, [_unit(unit) for unit in desired.units])
    return tasks


def _packages(names: Iterable[str]) -> _Task:
    # `name/suite` only says where a missing package would come from.
    plain = [name.partition("/")[0] for name in names]
    return {"name": "packages", _APT: {"name": plain, "state": "present", "install_recommends": False}}


def _path(path: Resource) -> tuple[str, dict[str, Any]]:
    """Return the module for a path and its arguments."""
    match path:
        case File():
            owned = {"mode": path.mode, "owner": path.owner, "group": path.group}
            return _COPY, {"src": _source(path), "dest": path.path, **owned}
        case Directory():
            owned = {"mode": path.mode, "owner": path.owner, "group": path.group}
            return _FILE, {"path": path.path, "state": "directory", **owned}
        case Absent():
            return _FILE, {"path": path.path, "state": "absent"}
    raise TypeError(f"{type(path).__name__} has no counterpart in Ansible here")


def _unit(unit: Unit) -> dict[str, Any]:
    arguments: dict[str, Any] = {"name": unit.name}
    if unit.startup == "masked":
        arguments["masked"] = True
    elif unit.startup is not None:
        arguments |= {"masked": False, "enabled": unit.startup == "enabled"}
    if unit.running is not None:
        arguments["state"] = "started" if unit.running else "stopped"
    return arguments


def _loop(module: str, items: Sequence[Mapping[str, Any]]) -> list[_Task]:
    """Return a task that gives `module` the arguments of each item; no task when there are none."""
    if not items:
        return []
    names = list(dict.fromkeys(name for item in items for name in item))
    optional = {name for name in names if any(name not in item for item in items)}
    arguments = {
        name: f"{{{{ item.{name} | default(omit) }}}}" if name in optional else f"{{{{ item.{name} }}}}"
        for name in names
    }
    label = "path" if "path" in names else "dest" if "dest" in names else "name"
    return [
        {
            "name": module.rpartition(".")[2],
            module: arguments,
            "loop": [dict(item) for item in items],
            "loop_control": {"label": f"{{{{ item.{label} }}}}"},
        }
    ]


def _source(file: File) -> str:
    """Return where a file's content is, below the directory `files` in which Ansible looks for it."""
    return file.path.lstrip("/")


def _dump(path: Path, data: Any) -> None:
    yaml = YAML()
    yaml.default_flow_style = False
    # One line for each value, however long.
    yaml.width = 4096
    with path.open("w", encoding="utf-8") as stream:
        yaml.dump(data, stream)
