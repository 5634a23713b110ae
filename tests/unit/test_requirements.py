"""The locks of Python packages: complete on every Python that they are installed on, whichever made them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rtinfra.paths import PROJECT

FILES = ("runtime", "dev", "preflight")
# Of Debian 12 and 13 and Ubuntu 24.04: wheels for hosts, the mirror, and computers that `make` runs on.
PYTHONS = ("3.11.2", "3.12.3", "3.13.5")


def pinned(name: str) -> dict[str, Requirement]:
    """Return what a lock pins, by normalised name."""
    text = (PROJECT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    found = [Requirement(line) for line in re.findall(r"^([a-zA-Z][^\s\\]*)", text, re.MULTILINE)]
    return {canonicalize_name(one.name): one for one in found}


def needed(requirement: Requirement, python: str) -> Iterator[Requirement]:
    """Return what an installed distribution needs on a Python on Linux, the extras asked for included."""
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    for text in requires(requirement.name) or ():
        one = Requirement(text)
        extras = ("", *requirement.extras)
        if one.marker is None or any(one.marker.evaluate({**environment, "extra": extra}) for extra in extras):
            yield one


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", FILES)
def test_a_lock_pins_everything_that_its_packages_need(name: str, python: str) -> None:
    lock = pinned(name)
    missing = {
        f"{one.name} for {requirement.name}"
        for requirement in lock.values()
        for one in needed(requirement, python)
        if canonicalize_name(one.name) not in lock
    }
    assert missing == set()


@pytest.mark.parametrize("name", ["dev", "preflight"])
def test_all_locks_have_the_same_versions(name: str) -> None:
    """What is tested is what runs."""
    runtime, other = pinned("runtime"), pinned(name)
    common = runtime.keys() & other.keys()
    assert {one: other[one].specifier for one in common} == {one: runtime[one].specifier for one in common}
    assert len(common) > 15


def test_hosts_get_nothing_that_the_mirror_lacks() -> None:
    """Whoever has the wheels of the control machine's Python has those of the same Python on hosts."""
    assert pinned("preflight").keys() <= pinned("runtime").keys()


def test_coverage_is_pinned_with_its_extra() -> None:
    """Without it a newer release of pytest-cov breaks an installation from the lock."""
    assert pinned("dev")["coverage"].extras == {"toml"}
