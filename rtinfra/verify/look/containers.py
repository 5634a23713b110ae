"""Containers, the images they run, and the data they keep."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rtinfra.facts import output_sections
from rtinfra.verify.look import foreign
from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions

# Enough to see that something is stored; a database may have tens of thousands.
_MOST_DATA_FILES: Final = 2000


@dataclass(frozen=True)
class Container:
    """A container: its state in Podman's word, and every reference `repository@sha256:...` of its image."""

    state: str
    images: frozenset[str]


@dataclass(frozen=True)
class Containers:
    """Containers by name.

    `directories` are mode, user and group of the programs' data directories by path, `data_files` some of the files in
    them with their sizes.
    """

    all: Mapping[str, Container]
    directories: Mapping[str, str]
    data_files: Mapping[str, int]

    def state(self, name: str) -> str:
        """Return Podman's word for a container's state; `absent` when there is none of that name."""
        found = self.all.get(name)
        return found.state if found else "absent"


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask Podman, and for the data of telemetry programs."""
    if not questions.programs:
        return {}
    commands = {
        "containers": "podman ps --all --no-trunc --format '{{.Names}} {{.ImageID}} {{.State}}'",
        "images": "podman image ls --no-trunc --digests --format '{{.ID}} {{.Repository}}@{{.Digest}}'",
    }
    places = " ".join(shlex.quote(path) for program in questions.programs for path in program.directories)
    if places:
        commands["directories"] = f"stat -c '%n %a %U %G' {places}"
        listed = f"find {places} -xdev -type f -printf '%s %p\\0' | {foreign.ONE_LINE_EACH}"
        commands["data_files"] = f"{listed} | head -n {_MOST_DATA_FILES}"
    return commands


def read(answer: Answer) -> Containers:
    """Read what `ask` asked."""
    sizes = output_sections.pairs(answer.lines("data_files"))
    return Containers(
        all=dict(_containers(answer.lines("containers"), answer.lines("images"))),
        directories=dict(output_sections.pairs(answer.lines("directories"))),
        data_files={path: int(size) for size, path in sizes if size.isdecimal()},
    )


def _containers(lines: Iterable[str], images: Iterable[str]) -> Iterator[tuple[str, Container]]:
    """Join containers with the references of their images; Podman writes an image's id with `sha256:` or without."""
    references: dict[str, set[str]] = {}
    for identifier, reference in output_sections.pairs(images):
        references.setdefault(identifier.removeprefix("sha256:"), set()).add(reference)
    for line in lines:
        name, identifier, state = [*line.split(), "", "", ""][:3]
        if name:
            yield name, Container(state, frozenset(references.get(identifier.removeprefix("sha256:"), ())))
