"""What shellcheck gets to see (`tests/shell_scripts.py`); that it finds nothing is a stage of `tests/run lint`."""

from __future__ import annotations

import functools

import pytest
from jinja2 import Environment

from rtinfra import render
from rtinfra.paths import PROJECT
from tests import shell_scripts
from tests.shell_scripts import Script, complaints, everything, in_unit

scripts = functools.cache(everything)


def test_every_script_template_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[str] = set()
    load = Environment.get_template

    def noting(self: Environment, name: str, *arguments: object, **more: object) -> object:
        used.add(name)
        return load(self, name, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Environment, "get_template", noting)
    render._environment.cache_clear()
    list(shell_scripts.of_hosts())
    templates = PROJECT / "templates"
    shipped = {str(path.relative_to(templates)) for path in templates.rglob("*.sh*")}
    assert shipped >= {"rt_kernel/boot.sh", "rt_tuning/tune.sh.j2"}
    assert shipped - used == set()


@pytest.mark.parametrize(
    "name",
    [
        "tests/run",
        ".ci/run",
        "rtinfra/mirror/install.sh",
        "rtinfra/operations/sync.sh",
        ".github/workflows/ci.yml/test-1",
        "rendered/1/debian-12/robot/usr/local/lib/rtinfra/boot",
        "rendered/1/debian-12/robot/usr/local/bin/rtinfra-preflight",
        "rendered/1/robot/verification",
        "rendered/2/station/stack/reset",
        "rendered/facts/host",
        "rendered/two-typed-lines",
    ],
)
def test_scripts_of_every_kind_are_seen(name: str) -> None:
    assert name in scripts()


def test_each_is_checked_in_the_language_of_its_first_line() -> None:
    assert scripts()["tests/run"].dialect == "bash"
    assert scripts()["rtinfra/operations/sync.sh"].dialect == "sh"
    bashism = 'a=(1 2)\necho "${a[0]}"\n'
    assert "SC3030" in complaints({"one": Script(f"#!/bin/sh\n{bashism}")})
    assert complaints({"one": Script(f"#!/usr/bin/env bash\n{bashism}")}) == ""


def test_a_mistake_is_named_with_its_place_and_its_line() -> None:
    said = complaints({"rendered/robot/usr/local/bin/thing": Script("#!/bin/sh\nrm -rf $1/old\n")})
    assert "In rendered/robot/usr/local/bin/thing line 2:" in said
    assert "rm -rf $1/old" in said


def test_a_script_in_a_unit_is_what_its_shell_gets() -> None:
    shell = "/bin/sh -ec 'date +%%s >$$HOME/at; echo \"$$1\"' name word"
    unit = f"[Service]\nExecStartPre=+{shell}\nExecStart=/usr/bin/thing\n"
    assert list(in_unit(unit)) == ['date +%s >$HOME/at; echo "$1"']
