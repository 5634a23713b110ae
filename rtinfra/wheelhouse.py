"""Python wheels that hosts need, on the control machine: hosts reach no package index.

    wheels/cp313-<digest>/*.whl     what requirements/preflight.txt pins, for one Python
    wheels/own/*.whl                our own modules that run on hosts

The digest is that of the requirements: another set of versions is another folder, and a folder is complete.
"""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from rtinfra.local import pip
from rtinfra.local.errors import LocalError
from rtinfra.local.files import replace_file
from rtinfra.local.pip import Interpreter
from rtinfra.local.progress import Reporter
from rtinfra.paths import PROJECT

#: Python of each supported distribution.
PYTHONS: Final[Mapping[str, str]] = {"debian-12": "3.11", "debian-13": "3.13", "ubuntu-24.04": "3.12"}
REQUIREMENTS: Final = PROJECT / "requirements" / "preflight.txt"
HOUSE: Final = PROJECT / "wheels"
#: Our modules that run on hosts; they import nothing else of ours (tests/unit/test_docs.py).
MODULES: Final = (
    *("__init__.py", "paths.py", "py.typed"),
    *("config/__init__.py", "config/host_types.py", "config/types.py"),
    *("local/__init__.py", "local/errors.py", "local/files.py", "local/file_lock.py"),
    *("cpu", "notify", "preflight"),
    *("secrets/__init__.py", "secrets/chain.py", "secrets/errors.py", "secrets/local.py"),
)
#: What brings the wheels here.
FETCH: Final = "run `rtinfra wheels`, on a connected computer if this one reaches no index, and bring wheels/ here"
# Command lines of the control machine.
_NOT_CARRIED = "cli.py"
_NAME = "rtinfra_preflight"
# Of the hosts that wheels are carried to.
_MACHINE = "x86_64"
# A wheel is a zip file, and the time of its members would make every build another file.
_TIME = (1980, 1, 1, 0, 0, 0)


class WheelsMissing(LocalError):
    """Wheels that a host needs are not on this computer."""


@dataclass(frozen=True)
class Wheel:
    """A wheel on this computer."""

    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """Name of its file."""
        return self.path.name

    @property
    def requirement(self) -> str:
        """A line that makes pip install exactly this wheel."""
        project, version, *_ = self.name.split("-")
        return f"{project}=={version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True)
class Wheelhouse:
    """The folder with wheels."""

    directory: Path = HOUSE
    requirements: Path = REQUIREMENTS

    def has(self, python: str) -> bool:
        """Whether the wheels for one Python are here."""
        return self._place(python).is_dir()

    def wheels(self, python: str) -> tuple[Wheel, ...]:
        """Return the wheels for one Python, `3.13`.

        Raises:
            WheelsMissing: they have not been fetched, or not for the versions required now.
        """
        place = self._place(python)
        if not place.is_dir():
            raise WheelsMissing(f"the wheels for Python {python} are not in {self.directory}", FETCH)
        return tuple(_wheel(path) for path in sorted(place.glob("*.whl")))

    def fetch(self, python: str, report: Reporter) -> tuple[Wheel, ...]:
        """Fetch the wheels for one Python from the index this computer's pip is configured for; every hash is checked.

        Raises:
            LocalError: pip cannot get one of them.
        """
        place = self._place(python)
        if not place.is_dir():
            with report.step(f"Fetching wheels for Python {python}", usual=30):
                self._download(python, place)
        return self.wheels(python)

    def own(self) -> Wheel:
        """Build the wheel of our own modules; the same modules give the same file."""
        name, content = build_own(PROJECT)
        path = self.directory / "own" / name
        if not path.exists() or path.read_bytes() != content:
            replace_file(path, content)
            for other in path.parent.glob("*.whl"):
                if other != path:
                    other.unlink()
        return _wheel(path)

    def _place(self, python: str) -> Path:
        digest = hashlib.sha256(self.requirements.read_bytes()).hexdigest()
        return self.directory / f"cp{python.replace('.', '')}-{digest[:12]}"

    def _download(self, python: str, place: Path) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        tag = f"cp{python.replace('.', '')}"
        # A folder gets its name when everything is in it.
        new = Path(mkdtemp(prefix=f".{tag}-", dir=self.directory))
        try:
            # One set for every distribution with this Python: for the oldest C library.
            pip.download(self.requirements, Interpreter(python, _MACHINE), new)
            new.chmod(0o755)
            for old in self.directory.glob(f"{tag}-*"):
                shutil.rmtree(old)
            new.rename(place)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def build_own(project: Path) -> tuple[str, bytes]:
    """Return name and content of the wheel with `MODULES`, in the format of PEP 427; its version has their hash."""
    sources = {f"rtinfra/{path}": content for path, content in _sources(project / "rtinfra")}
    digest = hashlib.sha256()
    for path, content in sources.items():
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    version = f"0.1.0+{digest.hexdigest()[:12]}"
    info = f"{_NAME}-{version}.dist-info"
    members = {
        **sources,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {_NAME}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: rtinfra\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_urlsafe(content)},{len(content)}\n" for path, content in members.items())
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in members.items():
            member = zipfile.ZipInfo(path, _TIME)
            member.external_attr = 0o644 << 16
            wheel.writestr(member, content, zipfile.ZIP_DEFLATED, 9)
    return f"{_NAME}-{version}-py3-none-any.whl", archive.getvalue()


def _sources(package: Path) -> Iterator[tuple[str, bytes]]:
    for name in MODULES:
        path = package / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if file.name != _NOT_CARRIED:
                yield str(file.relative_to(package)), file.read_bytes()


def _urlsafe(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _wheel(path: Path) -> Wheel:
    return Wheel(path, hashlib.sha256(path.read_bytes()).hexdigest())
