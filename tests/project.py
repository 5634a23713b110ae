"""A copy of the project, as an operator would make one to try a change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rtinfra import runner
from rtinfra.paths import PROJECT
from rtinfra.runner import DeployResult

_PARTS = (
    "config.py",
    "deploy.py",
    "docs",
    "group_data",
    "images",
    "inventory",
    "metrics",
    "pyproject.toml",
    "requirements",
    "roles",
    "rtinfra",
    "templates",
)
# Too much to copy; no scenario changes them.
_STORES = (Path("images", "store"), Path("wheels"))


@dataclass(frozen=True)
class Project:
    """A copy of the project whose settings a scenario may change."""

    path: Path

    @classmethod
    def copy_to(cls, path: Path) -> Project:
        """Copy the project into a folder that is there, without the operator's own inventory."""
        for part in _PARTS:
            source = PROJECT / part
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "hosts.yaml", *(store.name for store in _STORES))
                shutil.copytree(source, path / part, ignore=ignored)
            else:
                shutil.copy(source, path / part)
        for store in _STORES:
            (path / store).symlink_to(PROJECT / store)
        return cls(path)

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace `old`, which must be there exactly once, in a file of the copy."""
        target = self.path / file
        text = target.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {file}"
        target.write_text(text.replace(old, new), encoding="utf-8")

    def write_hosts(self, text: str) -> None:
        """Write the operator's own inventory file."""
        (self.path / "inventory" / "hosts.yaml").write_text(text, encoding="utf-8")

    def deploy(self, *options: str, say: Callable[[str], None] = print) -> DeployResult:
        """Run `pyinfra inventory deploy.py` in the copy; `say` gets its lines as they come."""
        return runner.deploy("inventory", options, say=say, project=self.path)

    def pyinfra(self) -> subprocess.Popen[str]:
        """Start the same and return at once."""
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("pyinfra")), "-y", "inventory", "deploy.py"],
            cwd=self.path,
            env=runner.environment(self.path),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
