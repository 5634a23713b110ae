"""The typed settings of one host: the sections of its roles, with every check across roles.

This is the model that `rtinfra.config.load_fleet` fills from YAML; roles/catalogue.py makes its fields from the
sections of all roles. A role finds its own section by its key, `config[RT_APP]`, and reads settings from nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from pydantic import BaseModel, ValidationInfo, model_validator

from roles.shared import CPU, MIRROR
from rtinfra.config import ABSENT, Finding, report_findings
from rtinfra.config.sections import EVERY_HOST, S, Section
from rtinfra.config.types import Settings
from rtinfra.cpu import check_layout_offline

# Also where the inventory names another: it may be a port that is forwarded to this one.
_SSH_PORT: Final = 22


class _Checks(Protocol):
    """What a host's settings ask of a role."""

    def findings_of(self, config: HostConfig) -> Iterator[Finding]: ...
    def local_files_of(self, config: HostConfig) -> dict[str, str | None]: ...


class HostConfig(Settings):
    """All settings of one host. Sections of groups that the host is not in are absent."""

    sections: ClassVar[tuple[Section[Settings], ...]] = ()
    roles: ClassVar[tuple[_Checks, ...]] = ()

    def get(self, section: Section[S]) -> S | None:
        """Return a section; None when the host is not in its group. This is the one way to ask for a role."""
        found = getattr(self, section.name)
        return found if isinstance(found, section.model) else None

    def __getitem__(self, section: Section[S]) -> S:
        """Return a section.

        Raises:
            TypeError: the host is not in its group.
        """
        found = self.get(section)
        if found is None:
            raise TypeError(f"no section {section.name}: not a host of the group {section.group}")
        return found

    @property
    def sha256(self) -> str:
        """Hash of all these settings, to tell whether two of them are the same."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @model_validator(mode="before")
    @classmethod
    def _refuse_strays(cls, data: object, info: ValidationInfo) -> object:
        """Refuse settings that nobody would read, before they are looked at: an error in them would only confuse."""
        context = info.context or {}
        groups = {EVERY_HOST, *context.get("groups", ())}
        if isinstance(data, Mapping) and "groups" in context:
            report_findings(
                [
                    Finding(
                        section.name,
                        ABSENT,
                        f"is for hosts of the group {section.group}, and this host is not in it",
                        f"put the host into the group {section.group}, or remove the section",
                    )
                    for section in cls.sections
                    if data.get(section.name) is not None and section.group not in groups
                ],
                context,
            )
        return data

    @model_validator(mode="after")
    def _cross_checks(self, info: ValidationInfo) -> HostConfig:
        context = info.context or {}
        findings = [
            *self._missing_sections(context.get("groups", ())),
            *self._cpu_findings(),
            *self._port_clashes(context.get("ssh_port")),
            *(finding for role in self.roles for finding in role.findings_of(self)),
            *self._missing_files(context.get("root")),
        ]
        report_findings(findings, context)
        return self

    def _missing_sections(self, groups: tuple[str, ...]) -> Iterator[Finding]:
        for group in groups:
            for section in self.sections:
                if section.group == group and self.get(section) is None:
                    yield Finding(
                        section.name,
                        ABSENT,
                        f"is required on a host of the group {group}",
                        f"restore the section `{section.name}:` in group_data/{group}.yaml",
                    )

    def _cpu_findings(self) -> Iterator[Finding]:
        cpu = self.get(CPU)
        if cpu is None:
            return
        for found in check_layout_offline(cpu.isolated, cpu.housekeeping, cpu.count):
            yield Finding(found.key, found.value, found.reason, found.suggestion, found.severity)

    def _port_clashes(self, ssh_port: int | None) -> Iterator[Finding]:
        """Refuse two services that claim one port on this host, whose ssh server has some already."""
        owner = {port: "the ssh server" for port in (_SSH_PORT, ssh_port) if port is not None}
        for key, port in self.claimed_ports().items():
            if port in owner:
                yield Finding(
                    key,
                    port,
                    f"is already taken by {owner[port]} on this host",
                    f"use {_free_port(port, {*owner, *self.claimed_ports().values()})}",
                )
            else:
                owner[port] = key

    def claimed_ports(self) -> dict[str, int]:
        """Return every TCP port a service of ours listens on, by the configuration key that says so.

        In a model every field called `port` or ending in `_port` is one.
        """
        return dict(_ports(self))

    def _missing_files(self, root: Path | None) -> Iterator[Finding]:
        """Refuse files that are to be sent to the host and are not there. Relative to the project folder."""
        for key, name in self.local_files().items():
            if name is None:
                yield Finding(key, None, "must name a file for this kind of application", None)
            elif root is not None and not (root / name).is_file():
                yield Finding(key, name, f"is not a file below {root}", "put the file there or correct the name")

    def local_files(self) -> dict[str, str | None]:
        """Return the files of the control machine that this host's roles send, by configuration key."""
        files: dict[str, str | None] = {
            f"mirror.replacements.{index}": name for index, name in enumerate(self[MIRROR].replacements)
        }
        for role in self.roles:
            files |= role.local_files_of(self)
        return files


def _ports(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, int]]:
    for name in type(settings).model_fields:
        value: Any = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _ports(value, f"{prefix}{name}.")
        elif isinstance(value, int) and (name == "port" or name.endswith("_port")):
            yield f"{prefix}{name}", value


def _free_port(port: int, taken: set[int]) -> int:
    """Return the next port that nobody claims, from 1024 on again after the last one."""
    return next(candidate for candidate in chain(range(port + 1, 65536), range(1024, port)) if candidate not in taken)
