"""Files of others that are read after ours, or beside them, where the last one wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from roles.shared import LAST_FILE
from rtinfra.verify.look.answer import Answer, named
from rtinfra.verify.questions import Questions

# Where systemd-sysctl(8), systemd-system.conf(5), limits.conf(5) and modprobe.d(5) look; each folder is one kind.
_FOLDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "sysctl.d": ("/etc", "/run", "/usr/local/lib", "/usr/lib"),
    "system.conf.d": ("/etc/systemd", "/run/systemd", "/usr/lib/systemd"),
    "limits.d": ("/etc/security",),
    "modprobe.d": ("/etc", "/run", "/usr/lib"),
}
_RULES: Final = "rules.d"
# `sysctl --system` reads it after all others.
_LAST_OF_ALL: Final = "/etc/sysctl.conf"


@dataclass(frozen=True)
class Line:
    """One line that is no comment, and the file it stands in."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"

    @property
    def folder(self) -> str:
        """The name of the folder, which tells what kind of file it is."""
        return "sysctl.d" if self.path == _LAST_OF_ALL else PurePosixPath(self.path).parent.name

    @property
    def is_later(self) -> bool:
        """Whether it is read after ours."""
        return self.path == _LAST_OF_ALL or PurePosixPath(self.path).stem > LAST_FILE

    @property
    def setting(self) -> tuple[str, str]:
        """The two sides of `key = value`; a leading - only says that the key may be absent."""
        key, _, value = self.text.partition("=")
        return key.strip().removeprefix("-").replace("/", "."), " ".join(value.split())


@dataclass(frozen=True)
class OthersFiles:
    """Lines that are no comments, ours included; of udev's rules only those about the device that forbids sleep."""

    lines: tuple[Line, ...]

    def later(self, folder: str) -> Iterator[Line]:
        """Yield what is read after our file in a folder: `sysctl.d`, `system.conf.d`, `limits.d`, `rules.d`."""
        return (line for line in self.lines if line.folder == folder and line.is_later)

    def keeping_out(self, module: str) -> Iterator[Line]:
        """Yield what keeps a kernel module from being loaded, or loads something else in its place."""
        name = module.replace("-", "_")
        for line in self.lines:
            words = line.text.replace("-", "_").split()
            if line.folder == "modprobe.d" and words[:1] in (["blacklist"], ["install"]) and words[1:2] == [name]:
                yield line


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for all lines that are no comment; nothing on a host that we set nothing on."""
    if not questions.sysctl:
        return {}
    places = [f"{parent}/{folder}/*.conf" for folder, parents in _FOLDERS.items() for parent in parents]
    rules = " ".join(f"{parent}/udev/{_RULES}/*.rules" for parent in ("/etc", "/run", "/usr/lib"))
    return {
        "others_files": rf"grep -sHZvE '^[[:space:]]*([#;]|$)' {' '.join(places)} {_LAST_OF_ALL}",
        "others_rules": f"grep -sHZ '^[^#]*cpu_dma_latency' {rules}",
    }


def read(answer: Answer) -> OthersFiles:
    """Read what `ask` asked."""
    lines = [*answer.lines("others_files"), *answer.lines("others_rules")]
    return OthersFiles(tuple(Line(path, text) for path, text in named(lines)))
