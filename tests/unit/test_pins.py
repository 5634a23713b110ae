"""What others make and this project runs is named by its content: a tag leads elsewhere when somebody moves it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import PurePosixPath

import pytest

from rtinfra.images.image_catalogue import load_catalogue
from rtinfra.paths import PROJECT

#: Vendors' images whose digest nobody who works on this could ask for. They are pinned by the first
#: `rtinfra images pull NAME`, and nothing runs from them before.
NOT_PULLED_YET = {"mimir", "kibana"}

_ACTION = re.compile(r"^\s*(?:-\s+)?uses:\s*(.*?)\s*$")
_IMAGE = re.compile(r"^\s*(?:-\s+)?(?:image|container):\s*([^\s#{][^#]*?)\s*(?:#.*)?$")
_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE)


def files() -> Iterator[tuple[str, str]]:
    """Yield the workflows and the files of which images are made, by name."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        path = PurePosixPath(name)
        if (name.startswith(".github/") and path.suffix in (".yml", ".yaml")) or is_recipe(path):
            yield name, (PROJECT / name).read_text(encoding="utf-8")


def is_recipe(path: PurePosixPath) -> bool:
    return re.search(r"(^|\.)(Dockerfile|Containerfile)(\.|$)", path.name) is not None


def loose(name: str, text: str) -> Iterator[str]:
    """Yield what a file runs and does not pin, each with its line."""
    stages: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        place = f"{name}:{number}"
        if is_recipe(PurePosixPath(name)):
            if match := _FROM.match(line):
                base, stage = match.groups()
                if base not in stages | {"scratch"} and not _digested(base):
                    yield f"{place}: {base} has no digest"
                stages.add(stage)
        elif match := _ACTION.match(line):
            action = match[1]
            if not action.startswith("./") and not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)+", action):
                yield f"{place}: {action} is not a commit with its version behind it"
        elif (match := _IMAGE.match(line)) and not _digested(match[1]):
            yield f"{place}: {match[1]} has no digest"


def _digested(image: str) -> bool:
    return re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", image) is not None


def test_actions_and_base_images_are_pinned() -> None:
    found = dict(files())
    assert ".github/workflows/ci.yml" in found
    assert [problem for name, text in found.items() for problem in loose(name, text)] == []


def test_vendors_images_are_pinned_but_for_those_that_nobody_pulled() -> None:
    images = load_catalogue().images
    assert {name for name, it in images.items() if it.registry and it.registry.digest is None} == NOT_PULLED_YET


@pytest.mark.parametrize(
    "name, line, problem",
    [
        (".github/workflows/a.yml", "      - uses: actions/checkout@v4", "actions/checkout@v4 is not a commit"),
        (".github/workflows/a.yml", f"      - uses: actions/checkout@{'a' * 40}", "with its version behind it"),
        (".github/workflows/a.yml", f"      - uses: actions/checkout@{'a' * 39} # v4.3.1", "is not a commit"),
        (".github/workflows/a.yml", "    uses: some/where/.github/workflows/b.yml@main", "is not a commit"),
        (".github/workflows/a.yml", "      image: debian:12", "debian:12 has no digest"),
        (".github/workflows/a.yml", "    container: debian:12  # small", "debian:12 has no digest"),
        ("images/x/Dockerfile", "FROM --platform=linux/amd64 debian:12 AS base", "debian:12 has no digest"),
        ("images/x/x.Containerfile", "from debian", "debian has no digest"),
    ],
)
def test_what_is_loose_is_named_with_its_line(name: str, line: str, problem: str) -> None:
    (found,) = loose(name, f"# one\n{line}\n")
    assert found.startswith(f"{name}:2: ")
    assert problem in found


@pytest.mark.parametrize(
    "name, text",
    [
        (".github/workflows/a.yml", f"      - uses: actions/checkout@{'a' * 40} # v4.3.1\n      - uses: ./own\n"),
        (".github/workflows/a.yml", f"    container:\n      image: debian:12@sha256:{'0' * 64}\n"),
        ("Dockerfile", f"FROM go@sha256:{'0' * 64} AS build\nFROM scratch\nCOPY --from=build / /\nFROM build\n"),
    ],
)
def test_what_is_pinned_is_left_alone(name: str, text: str) -> None:
    assert list(loose(name, text)) == []
