"""How each kind of package orders its versions, and what advisories call the kind."""

from __future__ import annotations

import re
from typing import Final, TypeVar

from packaging.version import InvalidVersion, Version

from rtinfra.mirror.diff import compare_versions

PYPI: Final = "PyPI"
GO: Final = "Go"
#: The number of a Debian release by its code name: advisories say `Debian:13`.
_DEBIAN: Final = {"bullseye": 11, "bookworm": 12, "trixie": 13, "forky": 14}
_UBUNTU: Final = {"jammy": "22.04", "noble": "24.04"}
#: What the standard library and the compiler of Go are called.
GO_STANDARD: Final = ("stdlib", "toolchain")

# https://semver.org; Go leaves out no number, advisories now and then do.
_SEMVER: Final = re.compile(
    r"v?(\d{1,18})(?:\.(\d{1,18}))?(?:\.(\d{1,18}))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?"
)
_DEB: Final = re.compile(r"(?:\d{1,9}:)?[0-9A-Za-z.+:~-]+")
_Semantic = tuple[tuple[int, ...], bool, tuple[tuple[int, int, str], ...]]
_Version = TypeVar("_Version", Version, _Semantic)
_TOOLCHAIN: Final = re.compile(r"go(\d+)\.(\d+)(?:\.(\d+))?(?:(rc|beta)(\d+))?(?:[-+ ].*)?")


def distribution(suite: str) -> str:
    """Return what advisories call the distribution of a code name.

    Raises:
        ValueError: nobody has said yet what they call it.
    """
    if suite in _DEBIAN:
        return f"Debian:{_DEBIAN[suite]}"
    if suite in _UBUNTU:
        return f"Ubuntu:{_UBUNTU[suite]}:LTS"
    raise ValueError(f"the number of the release {suite} is not known; add it to rtinfra/mirror/ecosystems.py")


def normalised(ecosystem: str, name: str) -> str:
    """Return the one form of a name: in PyPI's `Foo_Bar` and `foo-bar` are the same project (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower() if ecosystem == PYPI else name


def compare(ecosystem: str, one: str, other: str) -> int:
    """Compare two versions as this ecosystem does: negative, zero or positive.

    Raises:
        ValueError: one of them is no version there.
    """
    if ecosystem == PYPI:
        return _sign(_python(one), _python(other))
    if ecosystem == GO:
        return _sign(_semantic(one), _semantic(other))
    return compare_versions(_debian(one), _debian(other))


def of_toolchain(version: str) -> str:
    """Return the version of Go, as the program says it, in the form of modules: go1.26rc1 is 1.26.0-rc.1.

    Raises:
        ValueError: it is none.
    """
    match = _TOOLCHAIN.fullmatch(version)
    if match is None:
        raise ValueError(f"{version!r} is no version of Go")
    major, minor, patch, stage, number = match.groups()
    return f"{major}.{minor}.{patch or 0}" + (f"-{stage}.{number}" if stage else "")


def _python(version: str) -> Version:
    try:
        return Version(version)
    except InvalidVersion as error:
        raise ValueError(f"{version!r} is no version of a Python package") from error


def _debian(version: str) -> str:
    if not _DEB.fullmatch(version):
        raise ValueError(f"{version!r} is no version of a Debian package")
    return version


def _semantic(version: str) -> _Semantic:
    match = _SEMVER.fullmatch(version)
    if match is None:
        raise ValueError(f"{version!r} is no version of a Go module")
    numbers = tuple(int(number or 0) for number in match.groups()[:3])
    # Any pre-release comes before its release; within one, numbers come before words.
    words = [word for word in (match[4] or "").split(".") if word]
    stage = tuple((0, int(word), "") if word.isdigit() else (1, 0, word) for word in words)
    return numbers, not stage, stage


def _sign(one: _Version, other: _Version) -> int:
    return (one > other) - (one < other)
