"""promtool, amtool and Alertmanager for tests, out of Debian's packages: as hosts run them, promtool older (2.x).

Fetched once into ~/.cache/rtinfra/tools by this machine's own apt, from the archive it is configured for, as apt of
another release would do it: nothing is installed. Only when that archive cannot be reached are the tests skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from rtinfra.local import programs
from rtinfra.local.archive import discover, mmdebstrap_source
from rtinfra.local.errors import LocalError
from rtinfra.local.file_lock import locked
from rtinfra.paths import PROJECT

PACKAGES = ("promtool", "prometheus-alertmanager")
_PROGRAMS = ("promtool", "amtool", "prometheus-alertmanager")
#: Below the programs: what Debian's Alertmanager reads from /usr/share.
SHARE = "share"
_SHARED = "prometheus"


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool or amtool; skips the test when they cannot be had."""
    return subprocess.run([tool(name), *arguments], capture_output=True, text=True, timeout=300, check=False)


def tool(name: str) -> Path:
    """Return the path of one of the programs; skips the test when they cannot be had."""
    found = _tools()
    if isinstance(found, str):
        pytest.skip(found)
    return found / name


@cache
def _tools() -> Path | str:
    """Return the directory of the programs, or why there is none."""
    suite = _suite()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtinfra" / "tools" / suite
    try:
        # Several processes run tests at the same time.
        with locked(home.with_suffix(".lock"), "fetching promtool and amtool", timeout=600):
            if not all((home / name).exists() for name in (*_PROGRAMS, SHARE)):
                # Perhaps left by a run that needed fewer of them.
                shutil.rmtree(home, ignore_errors=True)
                _fetch(suite, home)
    except LocalError as error:
        return f"promtool and amtool of Debian {suite} cannot be fetched: {error}"
    return home


def _suite() -> str:
    """Return the release that the image of Alertmanager is made of."""
    images = yaml.safe_load((PROJECT / "images" / "catalogue.yaml").read_text(encoding="utf-8"))["images"]
    return str(images["alertmanager"]["debian"]["suite"])


def _fetch(suite: str, target: Path) -> None:
    archive = discover()
    with TemporaryDirectory(dir=target.parent) as name:
        work = Path(name)
        for directory in ("sources", "state/lists/partial", "cache/archives/partial", "debs", "files"):
            (work / directory).mkdir(parents=True)
        (work / "sources" / "debian.sources").write_text(mmdebstrap_source(archive, suite), encoding="utf-8")
        options = {
            "Dir::Etc::SourceList": "/dev/null",
            "Dir::Etc::SourceParts": str(work / "sources"),
            "Dir::State": str(work / "state"),
            "Dir::State::Status": "/dev/null",
            "Dir::Cache": str(work / "cache"),
            "Acquire::Languages": "none",
            # apt's own user may not look into a home directory.
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            **dict(archive.options),
        }
        apt = ["apt-get", "--quiet", *(f"--option={key}={value}" for key, value in options.items())]
        programs.execute([*apt, "update"], timeout=300)
        programs.execute([*apt, "download", *PACKAGES], timeout=300, cwd=work / "debs")
        for package in sorted((work / "debs").glob("*.deb")):
            programs.execute(["dpkg-deb", "--extract", package, work / "files"], timeout=120)
        # All or nothing: what is in the target's place is complete.
        ready = work / "ready"
        ready.mkdir()
        for program in _PROGRAMS:
            shutil.copy2(work / "files" / "usr" / "bin" / program, ready)
        shutil.copytree(work / "files" / "usr" / "share" / _SHARED, ready / SHARE / _SHARED)
        ready.rename(target)
