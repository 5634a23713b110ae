"""Every program takes what the roles render for it and refuses what is wrong, by the command that hosts check with."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from rtinfra.operations.resources import File
from tests.native.fleet import IMAGES, checked, files
from tests.native.room import put, unpack

#: Role -> the image its programs are of.
ROLES = {"agents": "otelcol", "gateways": "otelcol", **{name: name for name in IMAGES if name != "otelcol"}}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The root directory of each image."""
    found = {image: tmp_path_factory.mktemp("roots") / image for image in IMAGES}
    for image, root in found.items():
        unpack(image, root)
    # As the agent's package has it.
    put(found["otelcol"], "/usr/bin/otelcol", (found["otelcol"] / "otelcol").read_bytes(), "0755")
    return found


def check(root: Path, command: Sequence[str], content: bytes) -> subprocess.CompletedProcess[str]:
    """Let a program look at a file's content, as hosts do before it goes live."""
    inside = next(word for word in command if "{path}" in word or "/checked" in word)
    # The gateways' and backends' checkers find it at the place where it is mounted.
    path = inside.partition("/checked")[0].rpartition("=")[2].removeprefix("file:") + "/checked"
    if "{path}" in inside:
        path = "/tmp/checked"
    put(root, path, content)
    words = [word.replace("{path}", path) for word in command]
    return subprocess.run(["chroot", root, *words], capture_output=True, text=True, timeout=60, check=False)


def configurations() -> list[tuple[str, File]]:
    """Every rendered file that a program checks."""
    return [(role, file) for role in ROLES for file in files(role) if file.validate is not None]


@pytest.mark.parametrize(("role", "file"), configurations(), ids=lambda value: getattr(value, "path", value))
def test_what_is_rendered_is_taken(roots: dict[str, Path], role: str, file: File) -> None:
    done = check(roots[ROLES[role]], checked(file), file.content)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("role", "name", "old", "new", "said"),
    [
        ("agents", "config.yaml", "balancer_name: round_robin", "balancer_nam: round_robin", "balancer_nam"),
        ("gateways", "config.yaml", "sizer: bytes", "sizer: pebbles", "pebbles"),
        ("jaeger", "config.yaml", "trace_storage: disk", "trace_storages: disk", "trace_storages"),
        ("prometheus", "prometheus.yml", "scrape_interval: ", "scrape_interval: often #", "often"),
        ("prometheus", "services.rules.yml", "expr: vector(1)", "expr: sum(((", "unclosed left parenthesis"),
        ("alertmanager", "alertmanager.yml", "receiver: alert-log", "receiver: nobody", "nobody"),
        ("alertmanager", "rtinfra.tmpl", "{{ end -}}", "{{ and -}}", "unexpected <define>"),
    ],
    ids=lambda value: None,
)
def test_what_is_wrong_is_refused_with_its_name(
    roots: dict[str, Path], role: str, name: str, old: str, new: str, said: str
) -> None:
    file = next(file for file in files(role) if file.path.endswith(f"/{name}"))
    text = file.content.decode()
    assert old in text
    done = check(roots[ROLES[role]], checked(file), text.replace(old, new, 1).encode())
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
