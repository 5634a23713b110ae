"""From the operator's YAML files to one typed, checked value per host.

    inventory/*.yaml   hosts with their groups, how to reach them, settings of their own
    group_data/*.yaml  settings by group; all.yaml for every host

Layers are merged all < the host's groups in the order listed < the host's own `settings`. All problems of all
hosts are collected and raised together, each with file, line and a suggestion.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError, ValidationInfo, field_validator

from rtinfra.config.explain import did_you_mean, explain
from rtinfra.config.host_types import host_address, is_host_name
from rtinfra.config.merge import EMPTY, Located, Place, joined, merge, nearest_place
from rtinfra.config.problems import ABSENT, ConfigError, Finding, Problem, collected
from rtinfra.config.schema import without_resets
from rtinfra.config.types import Port, SecretName, SettingError, Settings
from rtinfra.config.yaml import load_yaml
from rtinfra.cpu import CpuFinding, Severity

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T", bound=BaseModel)

#: Settings of this group apply to every host; hosts do not list it.
ALL: Final = "all"

_GROUP_DATA = "group_data"
_EXAMPLE_ENDING = ".example.yaml"


def _address(text: str) -> str:
    if "@" in text:
        user, _, rest = text.partition("@")
        become = "" if user == "root" else " with become: true"
        raise SettingError("must be an address without a user name", f"write {rest} and user: {user}{become}")
    return host_address(text)


def _local_path(path: Path, info: ValidationInfo) -> Path:
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise SettingError("names the home directory of an unknown user", "write ~/ for your own") from error
    root = (info.context or {}).get("root")
    return path if root is None else Path(root) / path


LocalPath = Annotated[Path, AfterValidator(_local_path)]
"""A path on the control machine; `~` is expanded, and a relative path starts at the project folder."""


class SshSettings(Settings):
    """How a host is reached. Host keys are always checked strictly; there is no switch to turn that off."""

    #: A host is asked this often for a sign of life, and after so many times without one its connection is closed, as
    #: ServerAliveInterval and ServerAliveCountMax of ssh_config(5) do. Two minutes: a host busy to the brim is alive.
    ALIVE_INTERVAL_SECONDS: ClassVar[int] = 15
    ALIVE_COUNT_MAX: ClassVar[int] = 8
    #: As `become_password`: whoever runs a command is asked for it.
    ASK: ClassVar[str] = "ask"

    address: Annotated[str, AfterValidator(_address)] = Field(description="IP address or host name")
    port: Port = 22
    user: str = Field(default="root", pattern=r"^[a-z_][a-z0-9_-]{0,30}$")
    become: bool = Field(default=False, description="become root with sudo after the login, as any other user has to")
    become_password: SecretName | None = Field(
        default=None, description="secret with the password that sudo asks for, or `ask`; null: it asks for none"
    )
    key: LocalPath | None = Field(default=None, description="private key; null for ssh-agent and ~/.ssh")
    known_hosts: LocalPath | None = Field(default=None, description="null for ~/.ssh/known_hosts")
    console_log: LocalPath | None = Field(
        default=None, description="file on this computer that receives the host's console; shown when a start fails"
    )

    @field_validator("become")
    @classmethod
    def _becomes_root(cls, become: bool, info: ValidationInfo) -> bool:
        user = info.data.get("user")
        if become and user == "root":
            raise SettingError("makes root of another user, and `user` is root", "name that user, or remove `become`")
        if not become and user not in ("root", None):
            raise SettingError(f"is false, and {user} may not change a host", "write become: true")
        return become

    @field_validator("become_password")
    @classmethod
    def _is_of_use(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is not None and info.data.get("become") is False:
            raise SettingError("is for hosts with `become: true`", "remove it")
        return name

    def connector_data(self) -> dict[str, object]:
        """Return the host data that pyinfra's SSH connector reads."""
        data: dict[str, object] = {
            "ssh_hostname": self.address,
            "ssh_port": self.port,
            "ssh_user": self.user,
            "ssh_strict_host_key_checking": "yes",
        }
        if self.key is not None:
            data["ssh_key"] = str(self.key)
        if self.known_hosts is not None:
            data["ssh_known_hosts_file"] = str(self.known_hosts)
        if self.console_log is not None:
            data["console_log"] = str(self.console_log)
        return data


@dataclass(frozen=True)
class FleetHost(Generic[M]):
    """One host of the inventory.

    Attributes:
        name: its name in the inventory.
        groups: its groups in the order listed, without `all`.
        ssh: how it is reached.
        config: its settings, merged and checked.
        source: where it is defined, `file:line`.
        places: where each of its settings was written, by dotted key; also of its inventory entry, under
            `hosts.<name>`.
    """

    name: str
    groups: tuple[str, ...]
    ssh: SshSettings
    config: M
    source: str
    places: Mapping[str, Place] = field(repr=False, compare=False, default_factory=dict)

    def locate(self, key: str) -> tuple[str | None, int | None]:
        """Return file and line of a dotted key, or of its nearest parent that was written.

        Settings are named as in the model, `cpu.isolated`; the inventory entry is `hosts.<name>.ssh.address`.
        """
        place = nearest_place(self.places, key)
        return (place.file, place.line) if place else (None, None)

    def problem(
        self,
        key: str,
        value: object,
        reason: str,
        suggestion: str | None = None,
        severity: Severity = "error",
    ) -> Problem:
        """Return a problem of this host that cites where `key` was written.

        For what only the observed host can tell: a topology that contradicts the CPU lists, for example.
        """
        return Problem(*self.locate(key), key, value, reason, suggestion, severity, (self.name,))

    def cite(self, finding: Finding | CpuFinding) -> Problem:
        """Return a finding about this host as a problem that cites file and line."""
        return self.problem(finding.key, finding.value, finding.reason, finding.suggestion, finding.severity)


@dataclass(frozen=True)
class Fleet(Generic[M]):
    """All hosts by name, in the order of the inventory, and what is worth a warning about them."""

    hosts: Mapping[str, FleetHost[M]]
    warnings: tuple[Problem, ...] = ()

    def group(self, name: str) -> tuple[FleetHost[M], ...]:
        """Return the hosts of a group in the order of the inventory; `all` are all of them."""
        return tuple(host for host in self.hosts.values() if name == ALL or name in host.groups)


def load_fleet(root: Path, inventory: Path, model: type[M], known_groups: Collection[str] = ()) -> Fleet[M]:
    """Load, merge and check everything the operator wrote.

    Args:
        root: the project folder, which has `group_data/`.
        inventory: a YAML file, or a directory: all its `*.yaml` files except `*.example.yaml`.
        model: the settings of one host. Its validators get the context `root` (Path), `host` (name),
            `groups` (tuple of names), `ssh_port` (of the host, None where that is wrong) and `warnings` (see
            `report_findings`).
        known_groups: groups that hosts may be in even when they have no file in `group_data/`.

    Raises:
        ConfigError: with all problems that were found.
    """
    return _Loader(root, model, known_groups).load(inventory)


class _Entry(Settings):
    """A host in an inventory file. Its `settings` are checked after merging, not here."""

    groups: tuple[str, ...] = ()
    ssh: SshSettings
    settings: dict[str, Any] = Field(default_factory=dict)


class _InventoryFile(Settings):
    """An inventory file, as far as it can be checked before its hosts are looked at one by one."""

    hosts: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class _Definition:
    """A host as an inventory file defines it. `ssh` is None when that part is wrong."""

    name: str
    tree: Located
    groups: tuple[str, ...]
    ssh: SshSettings | None

    @property
    def key(self) -> str:
        return joined("hosts", self.name)


class _Loader(Generic[M]):
    """One run of load_fleet: collects problems while it goes on as far as it makes sense."""

    def __init__(self, root: Path, model: type[M], known_groups: Collection[str]) -> None:
        self._root = root
        self._model = model
        self._problems: list[Problem] = []
        # None marks a file that could not be loaded: hosts of that group get no follow-up errors.
        self._layers = {path.stem: self._load(path) for path in self._yaml_files(root / _GROUP_DATA)}
        self._groups = {*self._layers, *known_groups} - {ALL}

    def load(self, inventory: Path) -> Fleet[M]:
        definitions = self._definitions(inventory)
        if not definitions and not self._problems:
            self._complain(None, "", "there are no hosts", f"add one below `hosts:` in {self._shown(inventory)}")
        for definition in definitions.values():
            self._check_groups(definition)
        self._check_addresses(definitions.values())
        hosts = [host for definition in definitions.values() if (host := self._settle(definition))]
        if any(problem.severity == "error" for problem in self._problems):
            raise ConfigError(self._problems)
        return Fleet({host.name: host for host in hosts}, collected(self._problems))

    def _definitions(self, inventory: Path) -> dict[str, _Definition]:
        found: dict[str, _Definition] = {}
        for path in self._inventory_files(inventory):
            tree = self._load(path)
            if tree is None or self._validated(_InventoryFile, tree) is None:
                continue
            for name, host in _mapping(_mapping(tree).get("hosts")).items():
                definition = self._definition(name, host)
                if name in found:
                    reason = f"is already defined in {found[name].tree.place}"
                    self._complain(host.place, definition.key, reason, "rename or remove one of them")
                elif self._check_name(definition):
                    found[name] = definition
        return found

    def _inventory_files(self, inventory: Path) -> list[Path]:
        if not inventory.is_dir():
            return [inventory]
        paths = [path for path in self._yaml_files(inventory) if not path.name.endswith(_EXAMPLE_ENDING)]
        if not paths:
            examples = sorted(inventory.glob(f"*{_EXAMPLE_ENDING}"))
            new = self._shown(inventory / "hosts.yaml")
            hint = f"copy {self._shown(examples[0])} to {new} and edit it" if examples else f"create {new}"
            reason = "the inventory is empty: there is no *.yaml file in this directory"
            self._problems.append(Problem(self._shown(inventory), None, "", ABSENT, reason, hint))
        return paths

    def _definition(self, name: str, tree: Located) -> _Definition:
        # Its settings are looked at when they are merged.
        own = Located({key: child for key, child in _mapping(tree).items() if key != "settings"}, tree.place)
        entry = self._validated(_Entry, tree, joined("hosts", name), texts=own)
        if entry is not None:
            return _Definition(name, tree, tuple(dict.fromkeys(entry.groups)), entry.ssh)
        # The groups are still needed, to look at the host's settings in the same run.
        listed = _mapping(tree).get("groups", EMPTY).plain()
        groups = listed if isinstance(listed, list) else []
        return _Definition(name, tree, tuple(group for group in groups if isinstance(group, str)), None)

    def _check_name(self, definition: _Definition) -> bool:
        if is_right := is_host_name(definition.name):
            return is_right
        repaired = re.sub(r"[^A-Za-z0-9.]+", "-", definition.name).strip("-.")
        self._complain(
            definition.tree.place,
            definition.key,
            "is not a host name: letters, digits and hyphens, in parts separated by dots",
            f"did you mean {repaired}?" if is_host_name(repaired) else None,
        )
        return False

    def _check_groups(self, definition: _Definition) -> None:
        places = definition.tree.places(definition.key)
        for index, group in enumerate(definition.groups):
            key = joined(definition.key, "groups")
            place = nearest_place(places, joined(key, index))
            if group == ALL:
                self._complain(place, key, "every host is in this group by itself", "remove it", group)
            elif group not in self._groups:
                hint = did_you_mean(group, sorted(self._groups), "the groups are")
                reason = f"is not a known group, and there is no {_GROUP_DATA}/{group}.yaml"
                self._complain(place, key, reason, hint, group)

    def _check_addresses(self, definitions: Iterable[_Definition]) -> None:
        first: dict[tuple[str, int], _Definition] = {}
        for definition in definitions:
            if definition.ssh is None:
                continue
            other = first.setdefault((definition.ssh.address, definition.ssh.port), definition)
            if other is not definition:
                key = joined(definition.key, "ssh.address")
                place = nearest_place(definition.tree.places(definition.key), key)
                reason = f"{other.name} ({other.tree.place}) has the same address and port {definition.ssh.port}"
                hint = "give each host its own address or port"
                self._complain(place, key, reason, hint, definition.ssh.address)

    def _settle(self, definition: _Definition) -> FleetHost[M] | None:
        """Merge and check a host's settings. None when something is wrong with it."""
        layers = [self._layers.get(group, EMPTY) for group in (ALL, *definition.groups)]
        written = [layer for layer in layers if layer is not None]
        if len(written) < len(layers):
            return None
        own = _mapping(definition.tree).get("settings")
        if own is None or not isinstance(own.value, Mapping):
            # Keys that are missing altogether are then reported where the host is defined.
            own = Located({}, definition.tree.place)
        tree = reduce(merge, [*written, own])
        config = self._validated(self._model, tree, host=definition, texts=tree)
        if config is None or definition.ssh is None:
            return None
        places = tree.places() | definition.tree.places(definition.key)
        source = str(definition.tree.place)
        return FleetHost(definition.name, definition.groups, definition.ssh, config, source, places)

    def _validated(
        self,
        model: type[T],
        tree: Located,
        prefix: str = "",
        host: _Definition | None = None,
        texts: Located | None = None,
    ) -> T | None:
        """Return the model's value for a tree; None after having noted what is wrong, in `texts` beside the model."""
        data = without_resets(tree, model)
        findings: list[Finding] = [*_unprintable(texts, prefix)] if texts is not None else []
        context = {
            "root": self._root,
            "host": host.name if host else None,
            "groups": host.groups if host else (),
            "ssh_port": host.ssh.port if host and host.ssh else None,
            "warnings": findings,
        }
        value = None
        try:
            # What is no line may be told in any words by whoever would have to take it.
            value = None if findings else model.model_validate(data, context=context)
        except ValidationError as error:
            findings += explain(error, model, data, prefix)
        places = tree.places(prefix)
        for found in findings:
            place = nearest_place(places, found.key) or tree.place
            self._complain(place, found.key, found.reason, found.suggestion, found.value, found.severity, host)
        return value

    def _load(self, path: Path) -> Located | None:
        try:
            return load_yaml(path, self._shown(path))
        except ConfigError as error:
            self._problems += error.problems
            return None

    def _yaml_files(self, directory: Path) -> list[Path]:
        for path in sorted(directory.glob("*.yml")):
            reason = "this file is not read: its name must end in .yaml"
            hint = f"rename it to {path.stem}.yaml"
            self._problems.append(Problem(self._shown(path), None, "", ABSENT, reason, hint))
        return sorted(directory.glob("*.yaml"))

    def _shown(self, path: Path) -> str:
        """Return a path as problems call it: relative to the project folder when it is inside."""
        absolute = path.absolute()
        root = self._root.absolute()
        return str(absolute.relative_to(root) if absolute.is_relative_to(root) else path)

    def _complain(
        self,
        place: Place | None,
        key: str,
        reason: str,
        suggestion: str | None = None,
        value: object = ABSENT,
        severity: Severity = "error",
        host: _Definition | None = None,
    ) -> None:
        file, line = (place.file, place.line) if place else (None, None)
        hosts = (host.name,) if host else ()
        self._problems.append(Problem(file, line, key, value, reason, suggestion, severity, hosts))


def _unprintable(tree: Located, key: str) -> Iterator[Finding]:
    """Yield texts with line breaks and the like: in a file of the host they would begin lines of their own."""
    if isinstance(tree.value, Mapping):
        for name, child in tree.value.items():
            yield from _unprintable(child, joined(key, name))
    elif isinstance(tree.value, tuple):
        for index, child in enumerate(tree.value):
            yield from _unprintable(child, joined(key, index))
    elif isinstance(tree.value, str) and not tree.value.isprintable():
        first = "".join(filter(str.isprintable, (tree.value.strip().splitlines() or [""])[0])).strip()
        hint = f'write "{first}"' if first else None
        yield Finding(key, tree.value, "has a line break or another character that is not shown", hint)


def _mapping(tree: Located | None) -> Mapping[str, Located]:
    return tree.value if tree is not None and isinstance(tree.value, Mapping) else {}
