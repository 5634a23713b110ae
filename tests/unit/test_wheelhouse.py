"""Wheels for hosts: our own wheel, what is missing, what is sent."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import tomllib
import zipfile
from pathlib import Path

import grimp
import pytest
from pyinfra.api.exceptions import OperationError
from pyinfra.api.operation import add_op
from pyinfra.api.state import State

from rtinfra.operations import environments
from rtinfra.operations.environments import name_of
from rtinfra.operations.resources import PythonEnvironment
from rtinfra.paths import PROJECT
from rtinfra.wheelhouse import MODULES, Wheelhouse, WheelsMissing, build_own
from tests.golden.plan import commands

ENVIRONMENT = PythonEnvironment("/opt/thing", "rtinfra.preflight")


def house(directory: Path) -> Wheelhouse:
    """A wheel house with two wheels for Python 3.13."""
    requirements = directory / "requirements.txt"
    requirements.write_text("a==1 --hash=sha256:00\nb==2 --hash=sha256:11\n")
    found = Wheelhouse(directory / "wheels", requirements)
    place = found._place("3.13")
    place.mkdir(parents=True)
    for name in ("a-1-py3-none-any.whl", "b-2-cp313-cp313-manylinux_2_28_x86_64.whl"):
        (place / name).write_bytes(name.encode())
    return found


# ---- our own wheel ----------------------------------------------------------------------------------------


def test_the_same_modules_are_the_same_wheel() -> None:
    assert build_own(PROJECT) == build_own(PROJECT)


def test_our_wheel_is_one_as_pip_wants_it() -> None:
    name, content = build_own(PROJECT)
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        names = wheel.namelist()
        (record,) = [path for path in names if path.endswith(".dist-info/RECORD")]
        rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(wheel.read(record).decode()))}
        for path in names:
            if path != record:
                digest = base64.urlsafe_b64encode(hashlib.sha256(wheel.read(path)).digest()).rstrip(b"=").decode()
                assert rows[path] == [f"sha256={digest}", str(len(wheel.read(path)))]
        assert rows.keys() == set(names)
    project, version, *_ = name.split("-")
    assert record == f"{project}-{version}.dist-info/RECORD"


def test_what_runs_on_hosts_imports_nothing_that_is_not_there() -> None:
    """Imports of the command line of the control machine are its own."""
    graph = grimp.build_graph("rtinfra", cache_dir=None)
    roots = {".".join(("rtinfra", *Path(name).with_suffix("").parts)).removesuffix(".__init__") for name in MODULES}
    packages = {f"rtinfra.{name}" for name in MODULES if "." not in name}
    carried = roots.union(*(graph.find_descendants(package) for package in packages))
    # Only loaded on the control machine, from modules that say so.
    elsewhere = {"rtinfra.config.explain", "rtinfra.config.loader", "rtinfra.config.problems"}
    elsewhere |= {"rtinfra.secrets.age", "rtinfra.secrets.infisical", "rtinfra.secrets.settings"}
    needed = {
        imported
        for module in carried - {"rtinfra.preflight.cli", "rtinfra.notify.cli"}
        if module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
    }
    assert needed - carried <= elsewhere


def test_the_requirements_of_hosts_are_among_those_of_the_project() -> None:
    with (PROJECT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]["dependencies"]
    bare = {re.split(r"[<>=]", name)[0] for name in project}
    lines = (PROJECT / "requirements" / "preflight.in").read_text().splitlines()
    assert {line for line in lines if line[0] not in "#-"} <= bare


# ---- the folder -------------------------------------------------------------------------------------------


def test_wheels_that_are_not_there_are_named_with_what_to_do(tmp_path: Path) -> None:
    found = house(tmp_path)
    assert [wheel.name for wheel in found.wheels("3.13")] == [
        "a-1-py3-none-any.whl",
        "b-2-cp313-cp313-manylinux_2_28_x86_64.whl",
    ]
    with pytest.raises(WheelsMissing, match=r"wheels for Python 3\.11 are not in"):
        found.wheels("3.11")


def test_wheels_of_other_versions_do_not_count(tmp_path: Path) -> None:
    found = house(tmp_path)
    found.requirements.write_text("a==2 --hash=sha256:00\n")
    assert not found.has("3.13")


# ---- what is sent -----------------------------------------------------------------------------------------


def sent(wheelhouse: Wheelhouse, answer: str, environment: PythonEnvironment = ENVIRONMENT) -> list[str]:
    def steps(state: State) -> None:
        add_op(state, environments.installed, name="x", environment=environment, wheelhouse=wheelhouse)

    return commands(steps, {"echo @@": answer.splitlines()})


def arrived(lines: list[str]) -> list[str]:
    """Names of the wheels that a run of commands has sent."""
    return [Path(line.split()[-1].strip("'")).name for line in lines if "sha256sum --check" in line]


def test_a_bare_host_gets_all_wheels(tmp_path: Path) -> None:
    found = house(tmp_path)
    lines = sent(found, "@@python\n3.13\n@@current\n@@wheels\n")
    assert arrived(lines) == [wheel.name for wheel in (*found.wheels("3.13"), found.own())]
    assert "environment.sh /opt/thing" in lines[-1]


def test_a_host_that_has_some_gets_the_others(tmp_path: Path) -> None:
    found = house(tmp_path)
    first, second = found.wheels("3.13")
    # One that was cut off while it was carried has another hash.
    there = f"{first.sha256}  {first.name}\n{'0' * 64}  {second.name}\n"
    lines = sent(found, f"@@python\n3.13\n@@current\nother\n@@wheels\n{there}")
    assert arrived(lines) == [second.name, found.own().name]


def test_a_host_that_has_the_environment_gets_nothing(tmp_path: Path) -> None:
    found = house(tmp_path)
    name = name_of("3.13", f"{found.requirements.read_text()}\n{found.own().requirement}\n")
    assert sent(found, f"@@python\n3.13\n@@current\n{name}\n@@wheels\n") == []


def test_with_an_index_only_our_own_is_carried(tmp_path: Path) -> None:
    found = house(tmp_path)
    environment = PythonEnvironment("/opt/thing", "rtinfra.preflight", from_index=True)
    lines = sent(found, "@@python\n3.12\n@@current\n@@wheels\n", environment)
    assert arrived(lines) == [found.own().name]
    assert " index " in lines[-1]


def test_a_python_without_wheels_is_refused(tmp_path: Path) -> None:
    found = house(tmp_path)
    with pytest.raises(OperationError, match=r"Python 3\.9"):
        sent(found, "@@python\n3.9\n@@current\n@@wheels\n")


def test_a_host_that_gets_its_python_in_the_same_run_can_be_planned(tmp_path: Path) -> None:
    (line,) = sent(house(tmp_path), "@@python\n@@current\n@@wheels\n")
    assert "install python3-venv" in line
