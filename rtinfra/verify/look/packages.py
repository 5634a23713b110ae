"""Every package that dpkg knows on the host, with state and version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rtinfra.verify.look.answer import Answer
from rtinfra.verify.questions import Questions


@dataclass(frozen=True)
class Package:
    """A package; `state` is dpkg's word, `installed` when it is there completely."""

    state: str
    version: str


@dataclass(frozen=True)
class Packages:
    """Packages by name, and whether the dynamic linker finds libnuma."""

    all: Mapping[str, Package]
    has_libnuma: bool

    def state(self, name: str) -> str:
        """Return dpkg's word for a package; `absent` when it has never been there."""
        found = self.all.get(name)
        return found.state if found else "absent"


def ask(questions: Questions) -> Mapping[str, str]:
    """Ask for all packages: which of them have to be there, is for the controls to say."""
    return {
        "packages": "dpkg-query -W -f '${Package} ${db:Status-Status} ${Version}\\n'",
        "libraries": "ldconfig -p | grep -o 'libnuma\\.so\\.1' | head -n 1",
    }


def read(answer: Answer) -> Packages:
    """Read what `ask` asked."""
    return Packages(all=dict(_packages(answer)), has_libnuma=bool(answer.line("libraries")))


def _packages(answer: Answer) -> Iterator[tuple[str, Package]]:
    found = [[*line.split(), "", ""][:3] for line in answer.filled("packages")]
    # A package may be there for several architectures: one that is installed counts.
    for name, state, version in sorted(found, key=lambda words: words[1] == "installed"):
        yield name, Package(state, version)
